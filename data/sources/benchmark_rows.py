"""Rows of benchmark files: which keys and columns hold captions and image ids, in JSON objects and in tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data.cli import UserError

Json = Any  # a parsed value of unknown shape
IMAGE_KEYS = (
    *("image", "img_path", "image/key", "image_ids", "item_ids", "filename", "file_name", "image_name", "image_path"),
    *("coco_image", "image_id", "videoID"),
)
"""Keys and columns of image ids, the most telling first: a row's own id is under the first that it has."""
_TEXT_KEYS = {
    "zh": "zh caption_zh zh_caption captions_zh zh_captions chinese chCap prompt_zh prompt_cn",
    "en": "en caption_en en_caption captions_en en_captions english enCap prompt_en",
    "en_all": "en_all",
    "zh_en": "zh_en",  # translations of the captions under zh, index by index
    "": "caption captions sentence sentences text texts raw query_text comment prompt",
}
TEXT_KEYS = {key: language for language, keys in _TEXT_KEYS.items() for key in keys.split()}
"""Keys and columns of captions, and their language; "" where the layout does not say it."""
NUMBERED_TEXT_KEY = re.compile(r"(?:caption|sentence|text)_?\d")  # caption_0 ... caption_4
COCO_NAME = re.compile(r"^(?:COCO_[a-z]+\d*_)?(\d{12})$")


@dataclass(frozen=True)
class BenchmarkRow:
    """A caption, or where `text` is None an image alone; `where` is its file and line for messages.

    `images` are the ids of the images that the caption describes, `aliases` other names of the same image.
    """

    where: str
    language: str
    text: str | None
    images: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def text_key_language(key: str) -> str | None:
    """The language of the captions under a key or column ("": unknown); None where it holds no captions."""
    return "" if NUMBERED_TEXT_KEY.fullmatch(key) else TEXT_KEYS.get(key)


def is_benchmark_column(name: str) -> bool:
    """Whether a key or column holds captions or image ids."""
    return name in IMAGE_KEYS or text_key_language(name) is not None


def record_rows(record: dict[str, Any], where: str) -> Iterator[BenchmarkRow]:
    """The rows of one JSON object or table row: its captions, or its image alone; none where it has neither."""
    names = [_image_ids(record[key]) for key in IMAGE_KEYS if key in record]
    names = [ids for ids in names if ids] or [()]
    images, aliases = names[0], tuple(alias for ids in names[1:] for alias in ids)
    texts = sorted((key for key in record if text_key_language(key) is not None), key=_rank)
    for key in texts:
        for text in caption_list(record[key], where, key):
            yield BenchmarkRow(where, text_key_language(key) or "", text, images, aliases)
    if images and not texts:
        yield BenchmarkRow(where, "", None, images, aliases)


def _rank(key: str) -> int:
    """Captions come in the order of TEXT_KEYS, wherever a record has them."""
    return list(TEXT_KEYS).index(key) if key in TEXT_KEYS else len(TEXT_KEYS)


def _image_ids(value: Json) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(str(one) for one in values if isinstance(one, (str, int)) and str(one))


def caption_list(value: Json, where: str, key: str) -> list[str]:
    """Captions under `key`: a string, a list of strings or of {"raw": ...}, or Crossmodal-3600's {"caption": [...]}."""
    if isinstance(value, dict):
        value = value.get("caption")
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list):
        texts = [text.get("raw", text.get("caption")) if isinstance(text, dict) else text for text in texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: {key} must be a string or a list of strings")
    return texts


def image_id(name: str) -> str:
    """The id behind a file name: "val2014/COCO_val2014_000000000139.jpg" and "000000000139.jpg" are one picture."""
    stem = name.rsplit("/", 1)[-1].rsplit("\\", 1)[-1].split("#")[0].strip()
    stem = re.sub(r"\.(?:jpe?g|png|webp|gif|bmp)$", "", stem, flags=re.IGNORECASE)
    coco = COCO_NAME.match(stem)
    return f"coco:{int(coco.group(1))}" if coco else stem
