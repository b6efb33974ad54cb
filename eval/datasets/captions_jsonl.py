"""One image a line: the bilingual layout {"image", "zh", "en"} and the one of CLIP_benchmark {"id", "sentences"}."""

from collections.abc import Iterator
from pathlib import Path

from data.command import UserError
from eval.benchmark import Benchmark, Caption, assemble
from eval.datasets.lines import captions_of, json_rows
from eval.datasets.pictures import folder_pictures

LANGUAGES = ("zh", "en", "en_all")


def read_jsonl(path: Path, images: Path | None, language: str) -> Benchmark:
    """Read `path`; the captions of `sentences` are in `language`, the others say theirs by their key."""
    return assemble(_rows(path, language), folder_pictures(path, images), (path,))


def _rows(path: Path, language: str) -> Iterator[Caption]:
    for where, row in json_rows(path):
        image = row.get("image", row.get("img_path"))
        if not isinstance(image, str) or not image:
            raise UserError(f'{where}: no image id; each line needs {{"image": id, "zh": [...], "en": [...]}}')
        keys = {key: key for key in LANGUAGES if key in row}
        if "sentences" in row:
            keys["sentences"] = language
        if not keys:
            raise UserError(f"{where}: no captions; each line needs zh, en or sentences, and this has {', '.join(row)}")
        for key, spoken in keys.items():
            for text in captions_of(row[key], where, key):
                yield Caption(spoken, text, (image,))
