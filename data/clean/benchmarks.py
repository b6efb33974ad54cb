"""What benchmarks hold: their texts and image ids, read from whatever shape they were published in.

Benchmarks by name: which files of a folder belong to them, whatever their publishers called these.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.clean.codepoints import decode
from data.clean.hashing import RowHashes, casefolded, hash_rows
from data.clean.normalise import normalise_text
from data.cli import UserError
from data.schema import TEXT
from data.sources.delimited import csv_records
from data.sources.documents import Json, load_json
from data.sources.io import read_text
from data.sources.jsonl import parse_json_line

IMAGE_KEYS = (
    "image",
    "img_path",
    "file_name",
    "filename",
    "image_name",
    "coco_image",
    "image_path",
    "image_ids",
    "image/key",
)
TEXT_KEYS = ("zh", "en", "en_all", "caption", "captions", "sentences", "sentence", "text", "texts", "raw",
             "query_text")  # fmt: skip
COCO = re.compile(r"^(?:COCO_[a-z]+\d*_)?(\d{12})$")


@dataclass(frozen=True)
class Benchmark:
    """One file's texts and canonical image ids."""

    name: str
    texts: tuple[str, ...]
    image_ids: frozenset[str]


@dataclass(frozen=True)
class Exclusions:
    """What may not be trained on: sorted keys of texts, and canonical image ids."""

    text_hashes: RowHashes
    image_ids: frozenset[str]


def image_id(name: str) -> str:
    """The id behind a file name: "val2014/COCO_val2014_000000000139.jpg" and "000000000139.jpg" are one picture."""
    stem = name.rsplit("/", 1)[-1].rsplit("\\", 1)[-1].split("#")[0].strip()
    stem = re.sub(r"\.(?:jpe?g|png|webp|gif|bmp)$", "", stem, flags=re.IGNORECASE)
    coco = COCO.match(stem)
    return f"coco:{int(coco.group(1))}" if coco else stem


def load_benchmark(root: str, path: str) -> Benchmark:
    """Read a benchmark: JSON lines, one JSON document, CSV with a header, a text a line, or `hub://ID`."""
    name = re.sub(r"\.(?:gz|zst|bz2|xz)$", "", path.lower())
    if path.startswith("hub://"):
        documents = _hub(path.removeprefix("hub://"))
    elif name.endswith((".jsonl", ".ndjson")):
        documents = list(_lines(root, path))
    elif name.endswith(".json"):
        documents = [load_json(root, path)]
    elif name.endswith((".csv", ".tsv")):
        documents = _table(root, path, "\t" if name.endswith(".tsv") else ",")
    else:
        documents = [{"text": read_text(root, path, "utf-8").splitlines()}]
    texts, images = list[str](), set[str]()
    for record in documents:
        _collect(record, texts, images)
    if not texts:
        raise UserError(f"{path}: no text under the keys {', '.join(TEXT_KEYS)}; rename the file's keys or columns")
    return Benchmark(path, tuple(dict.fromkeys(texts)), frozenset(image_id(i) for i in images))


def _lines(root: str, path: str) -> Iterator[Json]:
    for number, line in enumerate(read_text(root, path, "utf-8").split("\n"), 1):
        if line.strip():
            record = parse_json_line(line)
            if record is None:
                raise UserError(f"{path}:{number}: not JSON; a benchmark must be whole, fetch the file again")
            yield record


def _hub(name: str) -> list[Json]:
    """Every split of a Hugging Face data set, its columns of texts and image names; pictures are not looked at."""
    from datasets import Image, load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub client raises its own kinds for absent, gated and unreachable sets
        raise UserError(f"benchmarks: hub://{name}: cannot be opened: {error}") from error
    found = list[Json]()
    for data in splits.values():
        named = [key for key in TEXT_KEYS + IMAGE_KEYS if key in data.features]
        found += data.select_columns([key for key in named if not isinstance(data.features[key], Image)])
    return found


def _table(root: str, path: str, delimiter: str) -> list[Json]:
    text = read_text(root, path, "utf-8")
    header = text.split("\n", 1)[0].strip().split(delimiter)
    names = [name for name in header if name in TEXT_KEYS + IMAGE_KEYS]
    if not names:
        raise UserError(f"{path}:1: no column among {', '.join(TEXT_KEYS)}; the header has {', '.join(header)[:200]}")
    return [dict(zip(names, cells, strict=True)) for _, cells in csv_records(text, path, delimiter, names) if cells]


def _collect(node: Json, texts: list[str], images: set[str]) -> None:
    """Walk a record; strings under text keys are texts, strings under image keys are image names."""
    if isinstance(node, list):
        for value in node:
            _collect(value, texts, images)
    elif isinstance(node, dict):
        for key, value in node.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, (dict, list)):
                    _collect(one, texts, images)
                elif key in TEXT_KEYS and isinstance(one, str):
                    texts.append(one)
                elif key in IMAGE_KEYS:
                    images.add(str(one))


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
    """The files behind `benchmarks` of a recipe: names are looked up in `folder`, all else is a path, URL or hub id."""
    paths = list[str]()
    for name in entries:
        paths += _find_benchmark(Path(root, folder), name) if folder and name in BENCHMARK_PATTERNS else [name]
        if name in BENCHMARK_PATTERNS and not folder:
            raise UserError(f"benchmarks: {name} is a name; say in `benchmark_folder` where its files are")
    return list(dict.fromkeys(paths))


def _find_benchmark(folder: Path, name: str) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"benchmark_folder: {folder}: no such folder; mend the path in the config")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    matches = [
        f
        for f in files
        if re.search(BENCHMARK_PATTERNS[name], f, re.IGNORECASE) and re.search(TEXT_FILE_PATTERN, f, re.IGNORECASE)
    ]
    if not matches:
        raise UserError(
            f"benchmarks: {name}: no .json, .jsonl, .csv, .tsv or .txt below {folder} has a path "
            f"like {BENCHMARK_PATTERNS[name]!r}; "
            "fetch the benchmark there, or name its files"
        )
    return [str(folder / f) for f in matches]
