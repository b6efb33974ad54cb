"""Reader of benchmark files: every published layout as rows of language, text and image ids.

`eval` scores these rows and the cleaning keeps them out of a corpus, so what one can read the other removes. Layouts:

- JSON Lines, one JSON document (COCO, Karpathy's splits, a list of objects, a mapping from image to captions)
- a table with a header, separated by commas, tabs or `|`
- `IMAGE#0<tab>caption` lines, also Flickr8k-CN's `IMAGE#zhm#0 caption`
- a list of image ids, and a text a line
- a folder of Chinese-CLIP or MUGE, or with one file of the above, or with the Parquet files of a Hub data set
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.cli import UserError, one_line
from data.sources.benchmark_rows import (
    IMAGE_KEYS,
    BenchmarkRow,
    Json,
    caption_list,
    is_benchmark_column,
    record_rows,
    text_key_language,
)
from data.sources.compressed import COMPRESSED
from data.sources.io import open_decompressed, read_bytes

CAPTION_LINE = re.compile(r"^(?P<image>[^\s,#]+)(?P<index>#(?:(?:zh|en)[a-z]*#)?\d+)?(?:[\t,]| +)(?P<text>.*)$")
IMAGE_NAME = re.compile(
    r"(?=\S*\d)(?:\S+\.(?:jpe?g|png|webp|gif|bmp)|(?:\S*/)?COCO_\w+|\d{5,}|[0-9a-f]{16})", re.IGNORECASE
)
ODD_LINE = re.compile(r"\t|\.jpe?g\b|COCO_\w+\d{12}|#\d|^\s*[{<\[]")  # of no list of texts
HELD_OUT_FILES = ("test_texts.jsonl", "valid_texts.jsonl", "valid_queries.jsonl", "test_queries.jsonl")
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")
EXPECTED = (
    "give a folder with test_texts.jsonl and test_imgs.tsv, a CSV with the columns image,caption, lines of "
    'IMAGE#0<tab>caption, or a JSONL with {"image": ..., "zh": [...], "en": [...]} a line'
)


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
        return _lines(_text(root, path), path)
    if name.endswith(".parquet"):
        return _parquet(root, path)
    raise UserError(f"{path}: a file of an unknown kind; {EXPECTED}")


def _text(root: str, path: str) -> str:
    """A whole file; half a benchmark would leave the other half in a corpus, so bad bytes are an error."""
    content = read_bytes(root, path)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from error


def _parquet(root: str, path: str) -> Iterator[BenchmarkRow]:
    """Rows of a Hub data set's file by the names of its columns; pictures are not read."""
    with open_decompressed(root, path) as stream:
        try:
            file = pq.ParquetFile(stream)
            fields = [field for field in file.schema_arrow if is_benchmark_column(field.name)]
            columns = [f.name for f in fields if f.name not in IMAGE_KEYS or not pa.types.is_struct(f.type)]
            if not columns:
                names = ", ".join(file.schema_arrow.names)[:200]
                raise UserError(f"{path}: no column of captions among {names}")
            batches = file.iter_batches(1024, columns=columns)
            for number, record in enumerate((record for batch in batches for record in batch.to_pylist()), 1):
                filled = {name: value for name, value in record.items() if value is not None}
                yield from record_rows(filled, f"{path}: row {number}")
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error


def _parse_json(text: str, where: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, a number of 5,000 digits; nested without end
        raise UserError(f"{where}: not JSON ({one_line(error)}); is the file cut short?") from error


def _json_lines(text: str, path: str) -> Iterator[BenchmarkRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            record = _parse_json(line, where)
            if not isinstance(record, dict):
                raise UserError(f"{where}: a JSON {type(record).__name__} where an object is needed")
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


def _lines(text: str, path: str) -> Iterator[BenchmarkRow]:
    """A table with a header, captions with their image, image ids, or texts, whichever the lines are."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: no captions; the file is empty")
    is_table = COMPRESSED.sub("", path.lower()).endswith((".csv", ".tsv"))
    for delimiter in "\t,|":
        header = [cell.strip().strip('"') for cell in lines[0][1].split(delimiter)]
        if any(map(is_benchmark_column, header)) and (is_table or not any(" " in cell for cell in header)):
            return _table(text, path, delimiter)
    matches = [(number, line, CAPTION_LINE.match(line)) for number, line in lines]
    with_image = sum(bool(m and (m["index"] or IMAGE_NAME.fullmatch(m["image"]))) for _, _, m in matches)
    if 2 * with_image > len(lines):
        return _caption_lines(matches, path)
    if is_table:
        raise UserError(f"{path}:{lines[0][0]}: no column of captions in {lines[0][1][:70]!r}; {EXPECTED}")
    if all(IMAGE_NAME.fullmatch(line.strip()) for _, line in lines):
        return (BenchmarkRow(f"{path}:{number}", "", None, (line.strip(),)) for number, line in lines)
    odd = [(number, line) for number, line in lines if ODD_LINE.search(line)]
    if 10 * len(odd) > len(lines):
        raise UserError(f"{path}:{odd[0][0]}: not understood, {odd[0][1][:60]!r}; {EXPECTED}, or a text a line")
    return (BenchmarkRow(f"{path}:{number}", "", line.strip()) for number, line in lines)


def _table(text: str, path: str, delimiter: str) -> Iterator[BenchmarkRow]:
    reader = csv.reader(
        io.StringIO(text),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        header = [cell.strip() for cell in next(row for row in reader if row)]
        columns = {name: index for index, name in enumerate(header) if is_benchmark_column(name)}
        for cells in filter(None, reader):
            where = f"{path}:{reader.line_num}"
            if len(cells) <= max(columns.values()):
                raise UserError(f"{where}: the row lacks its image or its caption")
            yield from record_rows({name: cells[index].strip() for name, index in columns.items()}, where)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); quote captions that hold commas") from error


def _caption_lines(matches: Iterable[tuple[int, str, re.Match[str] | None]], path: str) -> Iterator[BenchmarkRow]:
    for number, line, match in matches:
        where = f"{path}:{number}"
        if match is None or not match["text"].strip():
            raise UserError(f"{where}: no IMAGE#0<tab>caption as in the lines around it, but {line[:60]!r}")
        yield BenchmarkRow(where, "", match["text"].strip(), (match["image"].strip(),))
