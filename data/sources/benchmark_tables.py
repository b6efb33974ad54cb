"""Records of benchmark files that are tables: CSV and TSV, lines of captions, lists of ids or texts, Parquet.

A record maps keys or columns to values, as one line of JSON Lines does; `data.sources.benchmark_files` reads all alike.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.cli import UserError
from data.sources.compressed import COMPRESSED
from data.sources.io import open_decompressed

CAPTION_LINE = re.compile(r"^(?P<image>[^\s,#]+)(?P<index>#(?:(?:zh|en)[a-z]*#)?\d+)?(?:[\t,]| +)(?P<text>.*)$")
IMAGE_NAME = re.compile(
    r"(?=\S*\d)(?:\S+\.(?:jpe?g|png|webp|gif|bmp)|(?:\S*/)?COCO_\w+|\d{5,}|[0-9a-f]{16})", re.IGNORECASE
)
ODD_LINE = re.compile(r"\t|\.jpe?g\b|COCO_\w+\d{12}|#\d|^\s*[{<\[]")  # of no list of texts
EXPECTED = (
    "give a folder with test_texts.jsonl and test_imgs.tsv, a CSV with the columns image,caption, lines of "
    'IMAGE#0<tab>caption, or a JSONL with {"image": ..., "zh": [...], "en": [...]} a line'
)
IsColumn = Callable[[str], bool]
"""Whether a column holds captions or image ids, by its name."""


@dataclass(frozen=True)
class BenchmarkRecord:
    """One entry of a file with its captions and image ids by key; `where` is its file and line for messages."""

    where: str
    values: dict[str, Any]


def line_records(text: str, path: str, is_column: IsColumn) -> Iterator[BenchmarkRecord]:
    """A table with a header, captions with their image, image ids, or texts, whichever the lines are."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: no captions; the file is empty")
    is_table = COMPRESSED.sub("", path.lower()).endswith((".csv", ".tsv"))
    for delimiter in "\t,|":
        header = [cell.strip().strip('"') for cell in lines[0][1].split(delimiter)]
        if any(map(is_column, header)) and (is_table or not any(" " in cell for cell in header)):
            return _table(text, path, delimiter, is_column)
    matches = [(number, line, CAPTION_LINE.match(line)) for number, line in lines]
    with_image = sum(bool(m and (m["index"] or IMAGE_NAME.fullmatch(m["image"]))) for _, _, m in matches)
    if 2 * with_image > len(lines):
        return _caption_lines(matches, path)
    if is_table:
        raise UserError(f"{path}:{lines[0][0]}: no column of captions in {lines[0][1][:70]!r}; {EXPECTED}")
    if all(IMAGE_NAME.fullmatch(line.strip()) for _, line in lines):
        return (BenchmarkRecord(f"{path}:{number}", {"image": line.strip()}) for number, line in lines)
    odd = [(number, line) for number, line in lines if ODD_LINE.search(line)]
    if 10 * len(odd) > len(lines):
        raise UserError(f"{path}:{odd[0][0]}: not understood, {odd[0][1][:60]!r}; {EXPECTED}, or a text a line")
    return (BenchmarkRecord(f"{path}:{number}", {"text": line.strip()}) for number, line in lines)


def _table(text: str, path: str, delimiter: str, is_column: IsColumn) -> Iterator[BenchmarkRecord]:
    reader = csv.reader(
        io.StringIO(text),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        header = [cell.strip() for cell in next(row for row in reader if row)]
        columns = {name: index for index, name in enumerate(header) if is_column(name)}
        for cells in filter(None, reader):
            where = f"{path}:{reader.line_num}"
            if len(cells) <= max(columns.values()):
                raise UserError(f"{where}: the row lacks its image or its caption")
            yield BenchmarkRecord(where, {name: cells[index].strip() for name, index in columns.items()})
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); quote captions that hold commas") from error


def _caption_lines(matches: Iterable[tuple[int, str, re.Match[str] | None]], path: str) -> Iterator[BenchmarkRecord]:
    for number, line, match in matches:
        where = f"{path}:{number}"
        if match is None or not match["text"].strip():
            raise UserError(f"{where}: no IMAGE#0<tab>caption as in the lines around it, but {line[:60]!r}")
        yield BenchmarkRecord(where, {"image": match["image"].strip(), "text": match["text"].strip()})


def parquet_records(root: str, path: str, is_column: IsColumn) -> Iterator[BenchmarkRecord]:
    """Of a Hub data set's file; pictures are not read."""
    with open_decompressed(root, path) as stream:
        try:
            file = pq.ParquetFile(stream)
            fields = [field for field in file.schema_arrow if is_column(field.name)]
            columns = [field.name for field in fields if not _is_picture(field.type)]
            if not columns:
                names = ", ".join(file.schema_arrow.names)[:200]
                raise UserError(f"{path}: no column of captions among {names}")
            batches = file.iter_batches(1024, columns=columns)
            for number, record in enumerate((record for batch in batches for record in batch.to_pylist()), 1):
                filled = {name: value for name, value in record.items() if value is not None}
                yield BenchmarkRecord(f"{path}: row {number}", filled)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error


def _is_picture(kind: pa.DataType) -> bool:
    """Whether `kind` is that of `datasets.Image`: a struct of bytes and path."""
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
