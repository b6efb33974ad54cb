"""Reader of benchmark files: every published layout as rows of language, text and image ids.

`eval` scores these rows and the cleaning keeps them out of a corpus, so what one can read the other removes. Layouts:

- JSON Lines, one JSON document (COCO, Karpathy's splits, a list of objects, a mapping from image to captions)
- a table with a header, separated by commas, tabs or `|`
- `IMAGE#0<tab>caption` lines, also Flickr8k-CN's `IMAGE#zhm#0 caption`
- a list of image ids, and a text a line
- a folder of Chinese-CLIP or MUGE, or with one file of the above, or with the Parquet files of a Hub data set
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.cli import UserError, one_line
from data.sources.benchmark_tables import EXPECTED, IMAGE_NAME, BenchmarkRecord, line_records, parquet_records
from data.sources.compressed import COMPRESSED
from data.sources.io import read_bytes

Json = Any  # a parsed value of unknown shape
HELD_OUT_FILES = ("test_texts.jsonl", "valid_texts.jsonl", "valid_queries.jsonl", "test_queries.jsonl")
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")
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


def benchmark_files(folder: Path) -> list[Path]:
    """The files of the benchmark in `folder`: Chinese-CLIP's test and validation files, or the only table.

    `folder` itself stands for the Parquet files of a Hub data set. UserError where no file or several could be meant.
    """
    if clip_files := [folder / name for name in HELD_OUT_FILES if (folder / name).is_file()]:
        return clip_files
    if any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet")):
        return [folder]
    tables = sorted(path for suffix in TABLE_SUFFIXES for path in folder.glob(f"*{suffix}"))
    if len(tables) == 1:
        return tables
    listing = ", ".join(table.name for table in tables) or "nothing of the kind"
    raise UserError(f"{folder}: a folder with {listing}; name one file, or {EXPECTED}")


def read_benchmark_rows(root: str, path: str) -> Iterator[BenchmarkRow]:
    """The rows of one file (plain, compressed or a zip member) in file order; UserError names the line."""
    name = COMPRESSED.sub("", path.lower())
    if name.endswith((".jsonl", ".ndjson")):
        return _json_lines(_text(root, path), path)
    if name.endswith(".json"):
        return _json_document(_text(root, path), path)
    if name.endswith((".csv", ".tsv", ".txt", ".token", ".lst")):
        return _rows(line_records(_text(root, path), path, is_benchmark_column))
    if name.endswith(".parquet"):
        return _rows(parquet_records(root, path, is_benchmark_column))
    raise UserError(f"{path}: a file of an unknown kind; {EXPECTED}")


def _rows(records: Iterator[BenchmarkRecord]) -> Iterator[BenchmarkRow]:
    return (row for record in records for row in record_rows(record.values, record.where))


def _text(root: str, path: str) -> str:
    """A whole file; half a benchmark would leave the other half in a corpus, so bad bytes are an error."""
    content = read_bytes(root, path)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from error


def _parse_json(text: str, where: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, a number of 5,000 digits; nested without end
        raise UserError(f"{where}: not JSON ({one_line(error)}); is the file cut short?") from error


def json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object of a line; `where`, its file and line, begins the UserError for anything else."""
    value = _parse_json(text, where)
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON {type(value).__name__} where an object is needed")
    return value


def _json_lines(text: str, path: str) -> Iterator[BenchmarkRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            record = json_object(line, where)
            rows = list(record_rows(record, where))
            if not rows:
                keys = ", ".join(record)[:200]
                raise UserError(f"{where}: no captions; each line needs zh, en or sentences, and this has {keys}")
            yield from rows


def _json_document(text: str, path: str) -> Iterator[BenchmarkRow]:
    document = _parse_json(text, path)
    is_coco = isinstance(document, dict) and {"images", "annotations"} <= set(document)
    try:
        rows = list(_coco_rows(document, path) if is_coco else _walk(document, path))
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply; is this the right file?") from error
    if not rows:
        raise UserError(
            f"{path}: no captions in it; a JSON benchmark needs the keys images and annotations, as COCO's caption "
            "files have, or a list of objects with a key such as caption"
        )
    yield from rows


def _coco_rows(document: dict[str, Any], path: str) -> Iterator[BenchmarkRow]:
    """COCO and COCO-CN: every image, then every annotation; an image is known by its file name."""
    try:
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        notes = [(n.get("id"), names.get(n["image_id"]), n["image_id"], n["caption"]) for n in document["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: an image or annotation lacks {error}; COCO's have id, file_name, caption") from error
    for name in names.values():
        yield BenchmarkRow(path, "", None, (name,))
    for number, image, image_number, caption in notes:
        where = f"{path}: annotation {number}"
        if image is None:
            raise UserError(f"{where}: image {image_number} is not among images")
        for text in caption_list(caption, where, "caption"):
            yield BenchmarkRow(where, "", text, (image,))


def _walk(node: Json, path: str) -> Iterator[BenchmarkRow]:
    """Rows of every object below `node` that holds captions or image ids; also of {"1.jpg": ["caption", ...]}."""
    if isinstance(node, list):
        for number, entry in enumerate(node, 1):
            yield from _walk(entry, path if isinstance(entry, list) else f"{path}: entry {number}")
    elif isinstance(node, dict):
        if node and all(IMAGE_NAME.fullmatch(key) for key in node):
            for image, value in node.items():
                for text in caption_list(value, path, image):
                    yield BenchmarkRow(path, "", text, (image,))
        elif any(text_key_language(key) is not None for key in node):
            yield from record_rows(node, path)
        elif nested := [value for value in node.values() if isinstance(value, (list, dict))]:
            for value in nested:
                yield from _walk(value, path)
        else:
            yield from record_rows(node, path)


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
