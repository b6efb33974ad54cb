"""Recognise the layout of a benchmark by what lies at its path, and read it.

The JSON of COCO and COCO-CN: `images` with their file names, `annotations` with image id and caption.

The original layout of Flickr30K-CN: a CSV with the columns image,caption and a folder of pictures.

One image a line: {"image", "zh", "en"}, CLIP_benchmark's {"id", "sentences"}, and Crossmodal-3600's.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.cli import UserError
from data.files import read_json
from eval.datasets.benchmark import (
    Caption,
    RetrievalBenchmark,
    assemble,
    caption_list,
    checked_benchmark,
    folder_image_reader,
    json_rows,
    text_lines,
)
from eval.datasets.chinese_clip import CAPTION_SUFFIXES, TEXTS_FILE, read_chinese_clip
from eval.datasets.hub import is_hub_id, read_hub


def read_coco(path: Path, images: Path | None, language: str) -> RetrievalBenchmark:
    """Read `path`; the order of `images` is the order of the gallery, and an image is known by its file name."""
    document = read_json(path)
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        raise UserError(f"{path}: needs the keys images and annotations, as COCO's caption files have")
    try:
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        rows = [_caption(path, note, names, language) for note in document["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: an image or annotation lacks {error}; COCO's have id, file_name, caption") from error
    return assemble(rows, folder_image_reader(path, images), (path,), names.values())


def _caption(path: Path, annotation: dict[str, Any], names: dict[Any, str], language: str) -> Caption:
    text, image = annotation["caption"], annotation["image_id"]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{path}: annotation {annotation.get('id')}: an empty caption; remove it")
    if image not in names:
        raise UserError(f"{path}: annotation {annotation.get('id')}: image {image} is not among images")
    return Caption(language, text, (names[image],))


COLUMNS = ("image", "caption")


def read_csv(path: Path, images: Path | None, language: str) -> RetrievalBenchmark:
    """Read `path`, one caption a line after the heading `image,caption`; other columns are let be."""
    return assemble(_csv_captions(path, language), folder_image_reader(path, images), (path,))


def _csv_captions(path: Path, language: str) -> Iterator[Caption]:
    lines = [line for _, line in text_lines(path)]
    reader = csv.DictReader(lines, strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            heading = ",".join(reader.fieldnames or [])
            raise UserError(f"{path}:1: no column {missing[0]!r} in {heading[:70]!r}; the heading is image,caption")
        for row in reader:
            image, caption = row["image"], row["caption"]
            if not image or not caption or not caption.strip():
                raise UserError(f"{path}:{reader.line_num}: the row lacks its image or its caption")
            yield Caption(language, caption, (image,))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); quote captions that hold commas") from error


LANGUAGES = ("zh", "en", "en_all")


def read_jsonl(path: Path, images: Path | None, language: str) -> RetrievalBenchmark:
    """Read `path`; the captions of `sentences` are in `language`, the others say theirs by their key.

    Crossmodal-3600 has {"image/key", "zh": {"caption": [...]}, "en": {"caption": [...]}, ...}; all of them are read.
    """
    return assemble(_jsonl_captions(path, language), folder_image_reader(path, images), (path,))


def _jsonl_captions(path: Path, language: str) -> Iterator[Caption]:
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
            for text in caption_list(value, where, key):
                yield Caption(spoken, text, (image,))


def read_benchmark(data: str, images: Path | None = None, language: str = "zh") -> RetrievalBenchmark:
    """Read the benchmark at `data`: a file, a folder, or the id of a data set on the Hub.

    `images` is the folder of pictures where it is not beside the captions. `language` is that of captions whose layout
    does not say it. Anything that is not a whole benchmark raises UserError.
    """
    path = Path(data)
    if not path.exists() and is_hub_id(data):
        return checked_benchmark(read_hub(data), data)
    if not path.exists():
        raise UserError(f"--data {data}: no such file or folder; {_EXPECTED}")
    return checked_benchmark(_read_path(path, images, language), data)


def _read_path(path: Path, images: Path | None, language: str) -> RetrievalBenchmark:
    if path.is_file():
        if path.suffix == ".csv":
            return read_csv(path, images, language)
        if path.name.endswith(CAPTION_SUFFIXES):
            return read_chinese_clip(path, language)
        if path.suffix == ".json":
            return read_coco(path, images, language)
        if path.suffix == ".jsonl":
            return read_jsonl(path, images, language)
        raise UserError(f"--data {path}: a file of an unknown kind; {_EXPECTED}")
    for name in (TEXTS_FILE, "valid_texts.jsonl", "valid_queries.jsonl"):
        if (path / name).is_file():
            return read_chinese_clip(path / name, language)
    if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet")):
        return read_hub(str(path))
    tables = sorted([*path.glob("*.csv"), *path.glob("*.jsonl"), *path.glob("*.json")])
    if len(tables) == 1:
        return _read_path(tables[0], images, language)
    listing = ", ".join(table.name for table in tables) or "nothing of the kind"
    raise UserError(f"--data {path}: a folder with {listing}; name one file, or {_EXPECTED}")


_EXPECTED = (
    f"give a folder with {TEXTS_FILE} and test_imgs.tsv, a CSV with the columns image,caption, "
    'a JSONL with {"image": ..., "zh": [...], "en": [...]} a line, or the id of a data set on the Hub'
)
