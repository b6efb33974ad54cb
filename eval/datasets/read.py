"""Recognise the layout of a benchmark by what lies at its path, and read it."""

from pathlib import Path

from data.command import UserError
from eval.benchmark import Benchmark
from eval.datasets.captions_coco import read_coco
from eval.datasets.captions_csv import read_csv
from eval.datasets.captions_jsonl import read_jsonl
from eval.datasets.check import checked
from eval.datasets.chinese_clip import ENDINGS, TEXTS, read_chinese_clip
from eval.datasets.hub import is_hub_id, read_hub


def read(data: str, images: Path | None = None, language: str = "zh") -> Benchmark:
    """Read the benchmark at `data`: a file, a folder, or the id of a data set on the Hub.

    `images` is the folder of pictures where it is not beside the captions. `language` is that of captions whose layout
    does not say it. Anything that is not a whole benchmark raises UserError.
    """
    path = Path(data)
    if not path.exists() and is_hub_id(data):
        return checked(read_hub(data), data)
    if not path.exists():
        raise UserError(f"--data {data}: no such file or folder; {_WANTED}")
    return checked(_read_path(path, images, language), data)


def _read_path(path: Path, images: Path | None, language: str) -> Benchmark:
    if path.is_file():
        if path.suffix == ".csv":
            return read_csv(path, images, language)
        if path.name.endswith(ENDINGS):
            return read_chinese_clip(path, language)
        if path.suffix == ".json":
            return read_coco(path, images, language)
        if path.suffix == ".jsonl":
            return read_jsonl(path, images, language)
        raise UserError(f"--data {path}: a file of an unknown kind; {_WANTED}")
    for name in (TEXTS, "valid_texts.jsonl", "valid_queries.jsonl"):
        if (path / name).is_file():
            return read_chinese_clip(path / name, language)
    if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet")):
        return read_hub(str(path))
    tables = sorted([*path.glob("*.csv"), *path.glob("*.jsonl"), *path.glob("*.json")])
    if len(tables) == 1:
        return _read_path(tables[0], images, language)
    found = ", ".join(table.name for table in tables) or "nothing of the kind"
    raise UserError(f"--data {path}: a folder with {found}; name one file, or {_WANTED}")


_WANTED = (
    f"give a folder with {TEXTS} and test_imgs.tsv, a CSV with the columns image,caption, "
    'a JSONL with {"image": ..., "zh": [...], "en": [...]} a line, or the id of a data set on the Hub'
)
