"""The JSON of COCO and COCO-CN: `images` with their file names, `annotations` with image id and caption."""

from pathlib import Path
from typing import Any

from data.command import UserError
from distill.json_file import read_json
from eval.benchmark import Benchmark, Caption, assemble
from eval.datasets.pictures import folder_pictures


def read_coco(path: Path, images: Path | None, language: str) -> Benchmark:
    """Read `path`; the order of `images` is the order of the gallery, and an image is known by its file name."""
    whole = read_json(path)
    if not isinstance(whole, dict) or not {"images", "annotations"} <= set(whole):
        raise UserError(f"{path}: needs the keys images and annotations, as COCO's caption files have")
    try:
        names = {image["id"]: str(image["file_name"]) for image in whole["images"]}
        rows = [_caption(path, note, names, language) for note in whole["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: an image or annotation lacks {error}; COCO's have id, file_name, caption") from error
    return assemble(rows, folder_pictures(path, images), (path,), names.values())


def _caption(path: Path, note: dict[str, Any], names: dict[Any, str], language: str) -> Caption:
    text, image = note["caption"], note["image_id"]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{path}: annotation {note.get('id')}: an empty caption; remove it")
    if image not in names:
        raise UserError(f"{path}: annotation {note.get('id')}: image {image} is not among images")
    return Caption(language, text, (names[image],))
