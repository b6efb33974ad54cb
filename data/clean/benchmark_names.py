"""Benchmarks by name: which files of a folder belong to them, whatever their publishers called these."""

import re
from pathlib import Path

from data.command import UserError

READ = r"\.(?:jsonl?|ndjson|csv|tsv|txt|token)(?:\.(?:gz|bz2|xz|zst))?$"
NAMES = {  # name -> pattern of a path below the folder
    "flickr30k-cn": r"flickr30k[-_]?cn",
    "flickr30k": r"flickr30k(?![-_]?cn)|results_20130124",
    "coco-cn": r"coco[-_]?cn",
    "coco": r"(?<!x)(?<!flickr)coco(?![-_]?cn)|captions_(?:val|test)20\d\d",
    "muge": r"muge|MR_(?:test|valid)_queries",
    "xm3600": r"xm3600|crossmodal[-_]?3600",
    "xflickrco": r"xflickrco",
}


def benchmark_paths(root: str, folder: str, written: tuple[str, ...]) -> list[str]:
    """The files behind `benchmarks` of a recipe: names are looked up in `folder`, all else is a path, URL or hub id."""
    paths = list[str]()
    for name in written:
        paths += _named(Path(root, folder), name) if folder and name in NAMES else [name]
        if name in NAMES and not folder:
            raise UserError(f"benchmarks: {name} is a name; say in `benchmark_folder` where its files are")
    return list(dict.fromkeys(paths))


def _named(folder: Path, name: str) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"benchmark_folder: {folder}: no such folder; mend the path in the config")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    found = [f for f in files if re.search(NAMES[name], f, re.IGNORECASE) and re.search(READ, f, re.IGNORECASE)]
    if not found:
        raise UserError(
            f"benchmarks: {name}: no .json, .jsonl, .csv, .tsv or .txt below {folder} has a path like {NAMES[name]!r}; "
            "fetch the benchmark there, or name its files"
        )
    return [str(folder / f) for f in found]
