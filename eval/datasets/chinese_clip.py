"""The layout of Chinese-CLIP: `*_texts.jsonl` with captions and image ids, `*_imgs.tsv` with pictures in base64.

MUGE publishes the same under other names: `*_queries.jsonl` with query_text and item_ids.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path

from data.cli import UserError
from eval.datasets.benchmark import Caption, ImageReader, RetrievalBenchmark, assemble, caption_list, json_rows

TEXTS_FILE = "test_texts.jsonl"
CAPTION_SUFFIXES = ("_texts.jsonl", "_queries.jsonl")


def read_chinese_clip(texts: Path, language: str) -> RetrievalBenchmark:
    """Read `texts` and the pictures beside it; without pictures the gallery is what the captions speak of.

    The order of the pictures' file is the order of the gallery, and it decides ties, as it does in Chinese-CLIP.
    """
    ending = next(ending for ending in CAPTION_SUFFIXES if texts.name.endswith(ending))
    pictures = texts.with_name(texts.name.removesuffix(ending) + "_imgs.tsv")
    rows = list(_rows(texts, language))
    if not pictures.is_file():
        return assemble(rows, _missing_images(pictures), (texts,))
    offsets = _offsets(pictures)
    for row in rows:
        unknown = [image for image in row.images if image not in offsets]
        if unknown:
            raise UserError(f"{texts}: caption {row.text[:20]!r} is of image {unknown[0]}, which is not in {pictures}")
    return assemble(rows, _image_reader(pictures, offsets), (texts, pictures), offsets)


def _rows(texts: Path, language: str) -> Iterator[Caption]:
    for where, row in json_rows(texts):
        images, text = row.get("image_ids", row.get("item_ids")), row.get("text", row.get("query_text"))
        if not isinstance(images, list) or not images:
            raise UserError(f'{where}: no image_ids; each line needs {{"text_id", "text", "image_ids": [...]}}')
        if not isinstance(text, str):
            raise UserError(f'{where}: no text; each line needs {{"text_id", "text", "image_ids": [...]}}')
        yield Caption(language, caption_list(text, where, "text")[0], tuple(str(image) for image in images))


def _offsets(pictures: Path) -> dict[str, int]:
    """Where each picture's line begins, so that no more than one picture is in memory."""
    offsets: dict[str, int] = {}
    with pictures.open("rb") as file:
        position = 0
        for number, line in enumerate(file, 1):
            image, tab, _ = line.partition(b"\t")
            if not tab:
                raise UserError(f"{pictures}:{number}: no tab; each line needs id<TAB>picture in base64")
            offsets[image.decode("utf-8", errors="replace")] = position
            position += len(line)
    return offsets


def _image_reader(pictures: Path, offsets: dict[str, int]) -> ImageReader:
    def picture(image: str) -> bytes:
        with pictures.open("rb") as file:
            file.seek(offsets[image])
            code = file.readline().partition(b"\t")[2].strip()
        try:
            # Both alphabets are in use: files of the authors are in the plain one, their own reader takes the other.
            return base64.b64decode(code.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
        except binascii.Error as error:
            raise UserError(f"{pictures}: image {image} is not base64 ({error}); is the file cut short?") from error

    return picture


def _missing_images(pictures: Path) -> ImageReader:
    def picture(image: str) -> bytes:
        raise UserError(f"image {image}: no file {pictures}; put it there, or give features with --image-features")

    return picture
