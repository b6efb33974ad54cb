"""Read a retrieval benchmark from a file, a folder or the Hub, in whatever layout it was published."""

from dataclasses import replace
from pathlib import Path

from data.cli import UserError
from data.sources.benchmark_files import EXPECTED, benchmark_files, read_benchmark_rows
from data.sources.benchmark_rows import BenchmarkRow
from eval.datasets.benchmark import RetrievalBenchmark, assemble, checked_benchmark, folder_image_reader
from eval.datasets.chinese_clip import CAPTION_SUFFIXES, assemble_chinese_clip
from eval.datasets.hub import is_hub_id, read_hub


def read_benchmark(data: str, images: Path | None = None, language: str = "zh") -> RetrievalBenchmark:
    """Read the benchmark at `data`: a file, a folder, or the id of a data set on the Hub.

    `images` is the folder of pictures where it is not beside the captions. `language` is that of captions whose layout
    does not say it. Anything that is not a whole benchmark raises UserError.
    """
    path = Path(data)
    if not path.exists() and is_hub_id(data):
        return checked_benchmark(read_hub(data), data)
    if not path.exists():
        raise UserError(f"--data {data}: no such file or folder; {EXPECTED}, or the id of a data set on the Hub")
    file = benchmark_files(path)[0] if path.is_dir() else path
    if file.is_dir():
        return checked_benchmark(read_hub(str(file)), data)
    rows = [_scored_row(row, language) for row in read_benchmark_rows("", str(file))]
    if file.name.endswith(CAPTION_SUFFIXES):
        return checked_benchmark(assemble_chinese_clip(rows, file), data)
    return checked_benchmark(assemble(rows, folder_image_reader(file, images), (file,)), data)


def _scored_row(row: BenchmarkRow, language: str) -> BenchmarkRow:
    """`row` with its language; UserError where a caption is empty or has no image to be found."""
    if not row.images:
        raise UserError(
            f'{row.where}: no image id; each row needs one, such as {{"image": id, "zh": [...], "en": [...]}}'
        )
    if row.text is not None and not row.text.strip():
        raise UserError(f"{row.where}: an empty caption; remove it")
    return replace(row, language=row.language or language)
