"""One image a line: {"image", "zh", "en"}, CLIP_benchmark's {"id", "sentences"}, and Crossmodal-3600's."""

from collections.abc import Iterator
from pathlib import Path

from data.command import UserError
from eval.benchmark import Benchmark, Caption, assemble
from eval.datasets.lines import captions_of, json_rows
from eval.datasets.pictures import folder_pictures

LANGUAGES = ("zh", "en", "en_all")


def read_jsonl(path: Path, images: Path | None, language: str) -> Benchmark:
    """Read `path`; the captions of `sentences` are in `language`, the others say theirs by their key.

    Crossmodal-3600 has {"image/key", "zh": {"caption": [...]}, "en": {"caption": [...]}, ...}; all of them are read.
    """
    return assemble(_rows(path, language), folder_pictures(path, images), (path,))


def _rows(path: Path, language: str) -> Iterator[Caption]:
    for where, row in json_rows(path):
        image = row.get("image", row.get("img_path", row.get("image/key")))
        if not isinstance(image, str) or not image:
            raise UserError(f'{where}: no image id; each line needs {{"image": id, "zh": [...], "en": [...]}}')
        keys = {key: key for key in LANGUAGES if key in row}
        if "sentences" in row:
            keys["sentences"] = language
        if not keys:
            raise UserError(f"{where}: no captions; each line needs zh, en or sentences, and this has {', '.join(row)}")
        for key, spoken in keys.items():
            value = row[key]
            value = value.get("caption") if isinstance(value, dict) else value  # as Crossmodal-3600 has it
            for text in captions_of(value, where, key):
                yield Caption(spoken, text, (image,))
