"""Benchmarks to keep out of a corpus: their texts and image ids, and which files of a folder belong to a name."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.clean.characters import decode
from data.clean.hashing import RowHashes, casefolded, hash_rows
from data.clean.normalise import normalise_text
from data.cli import UserError
from data.sources.benchmark_files import (
    BenchmarkRow,
    benchmark_files,
    image_id,
    is_benchmark_column,
    read_benchmark_rows,
    record_rows,
)
from data.sources.io import TEXT


@dataclass(frozen=True)
class Benchmark:
    """Distinct texts and canonical image ids of one file."""

    name: str
    texts: tuple[str, ...]
    image_ids: frozenset[str]


@dataclass(frozen=True)
class Exclusions:
    """What may not be trained on: sorted keys of texts, and canonical image ids."""

    text_hashes: RowHashes = field(default_factory=lambda: np.zeros(0, np.uint64))
    image_ids: frozenset[str] = frozenset()


def load_benchmark(root: str, path: str) -> Benchmark:
    """Read a benchmark: a file of any layout of `data.sources.benchmark_files`, or `hub://ID`."""
    if path.startswith("hub://"):
        rows = _hub_rows(path.removeprefix("hub://"))
    else:
        rows = list(read_benchmark_rows(root, path))
    texts = tuple(dict.fromkeys(row.text for row in rows if row.text))
    names = {name for row in rows for name in row.images + row.aliases}
    if not texts and not names:
        raise UserError(f"{path}: no captions and no image ids in it; is this the right file?")
    return Benchmark(path, texts, frozenset(image_id(name) for name in names))


def _hub_rows(name: str) -> list[BenchmarkRow]:
    """Every split of a Hugging Face data set, its columns of texts and image names; pictures are not looked at."""
    from datasets import Image, load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub client raises its own kinds for absent, gated and unreachable sets
        raise UserError(f"benchmarks: hub://{name}: cannot be opened: {error}") from error
    rows = list[BenchmarkRow]()
    for split, data in splits.items():
        columns = [c for c in data.column_names if is_benchmark_column(c) and not isinstance(data.features[c], Image)]
        for number, record in enumerate(data.select_columns(columns), 1):
            filled = {column: value for column, value in record.items() if value is not None}
            rows += record_rows(filled, f"hub://{name}: {split} row {number}")
    return rows


def hash_texts(texts: tuple[str, ...]) -> RowHashes:
    """Keys of the texts in their Chinese and their English normal form: a benchmark may mix both."""
    column = decode(pa.array(texts, TEXT))
    normal_forms = [normalise_text(column, chinese=zh, simplify=zh, spaces="remove") for zh in (False, True)]
    return np.unique(np.concatenate([hash_rows(casefolded(text)) for text in normal_forms]))


def build_exclusions(benchmarks: list[Benchmark]) -> Exclusions:
    """The union of what `benchmarks` hold; the empty text forbids nothing."""
    empty = hash_texts(("",))
    keys = [hash_texts(b.texts) for b in benchmarks]
    joined = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.uint64)
    return Exclusions(np.setdiff1d(joined, empty), frozenset().union(*(b.image_ids for b in benchmarks)))


TEXT_FILE_PATTERN = r"\.(?:jsonl?|ndjson|csv|tsv|txt|token)(?:\.(?:gz|bz2|xz|zst))?$"
BENCHMARK_PATTERNS = {  # name -> pattern of a path below the folder
    "flickr30k-cn": r"flickr30k[-_]?cn",
    "flickr30k": r"flickr30k(?![-_]?cn)|results_20130124",
    "coco-cn": r"coco[-_]?cn",
    "coco": r"(?<!x)(?<!flickr)coco(?![-_]?cn)|captions_(?:val|test)20\d\d",
    "muge": r"muge|MR_(?:test|valid)_queries",
    "xm3600": r"xm3600|crossmodal[-_]?3600",
    "xflickrco": r"xflickrco",
}


def benchmark_paths(root: str, folder: str, entries: tuple[str, ...]) -> list[str]:
    """The files behind `benchmarks` of a config: names are looked up in `folder`; else paths, folders, URLs, hub ids.

    A folder, also behind `hub://`, stands for its files, so that a file that changed is seen.
    """
    paths = list[str]()
    for entry in entries:
        if entry in BENCHMARK_PATTERNS:
            if not folder:
                raise UserError(f"benchmarks: {entry} is a name; say in `benchmark_folder` where its files are")
            paths += _find_benchmark(Path(root, folder), entry)
        elif (local := Path(root, entry.removeprefix("hub://"))).is_dir():
            files = benchmark_files(local)
            paths += sorted(map(str, local.rglob("*.parquet") if files == [local] else files))
        else:
            paths.append(entry)
    return list(dict.fromkeys(paths))


def _find_benchmark(folder: Path, name: str) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"benchmark_folder: {folder}: no such folder; fix the path in the config")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    matches = [
        f
        for f in files
        if re.search(BENCHMARK_PATTERNS[name], f, re.IGNORECASE)
        and re.search(TEXT_FILE_PATTERN, f, re.IGNORECASE)
        and not f.endswith("_imgs.tsv")  # pictures
    ]
    if not matches:
        raise UserError(
            f"benchmarks: {name}: no .json, .jsonl, .csv, .tsv or .txt below {folder} has a path "
            f"like {BENCHMARK_PATTERNS[name]!r}; "
            "fetch the benchmark there, or name its files"
        )
    return [str(folder / f) for f in matches]
