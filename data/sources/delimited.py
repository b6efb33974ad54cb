"""Tables as text: columns by number without quoting (TSV), and CSV with quotes, by header names or by number."""

import csv
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from data.cli import UserError
from data.jit import njit
from data.sources.base import LineSource, Pair, PairSource, raw_batch
from data.sources.io import TEXT, Bytes, Lines, Offsets, Span, read_lines, read_text

MAX_CELL_LINES = 20  # a record of more lines is looked at: its closing quote may be missing
FEW_RECORDS = 10  # as many times more lines than records: probably a stray quote
TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
CELL_EDGE = re.compile(r"(?<!\\)\|")
TABLE_MARKS = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|[`*]+|\\(?=\|)|<br\s*/?>")
FAULTS = ("", "blank", "columns", "score")


@dataclass(frozen=True, kw_only=True)
class Tsv(LineSource):
    """Columns by 1-based number, without quoting. A line with too few columns is the reject `columns`, else `blank`."""

    delimiter: str = "\t"  # one ASCII character
    en: int = 1
    zh: int = 2
    image: int = 0  # 0: no image column
    skip: int = 0  # header lines
    score: int = 0  # column of the publisher's own score (LASER margin of WikiMatrix, CCMatrix); 0: none
    min_score: float = 0.0  # rows under it are the reject `score`

    def read_file(self, root: str, path: str, index: int, span: Span | None = None) -> Iterator[pa.RecordBatch]:
        """Yield one batch a block of lines."""
        for key, column in (("en", self.en), ("zh", self.zh)):
            if column < 1:
                raise UserError(f"source {self.name}: {key} is column {column}; columns count from 1")
        if len(self.delimiter) != 1 or not self.delimiter.isascii():
            raise UserError(f"source {self.name}: delimiter {self.delimiter!r} is not one ASCII character; use csv")
        widest = 0
        for lines in read_lines(root, path, self.encoding, span):
            table = Columns(lines, ord(self.delimiter))
            widest = max(widest, int(table.counts.max()))
            batch = self._batch(index, table)
            yield batch.slice(max(0, self.skip - lines.first + 1))
        if not span and 0 < widest < (need := max(self.en, self.zh, self.image, self.score)):
            raise UserError(
                f"{path}: no line has column {need} (the widest has {widest}); fix `en`, `zh`, `image` "
                f"or `delimiter` of source {self.name}"
            )

    def _batch(self, index: int, table: "Columns") -> pa.RecordBatch:
        counts = table.counts
        short = counts < max(self.en, self.zh, self.image, self.score)
        en, faults = table.column(self.en), np.zeros(len(counts), np.int8)
        if short.any():
            short_lines = table.lines.text.filter(pa.array(short))
            blank = np.asarray(pc.equal(pc.utf8_trim_whitespace(short_lines), ""))
            faults[short] = np.where(blank, FAULTS.index("blank"), FAULTS.index("columns"))
            en = pc.replace_with_mask(en, pa.array(short), short_lines)
        if self.score:
            score_cells = pa.array(table.column(self.score))
            number = pc.match_substring_regex(score_cells, r"^\s*-?\d+(\.\d+)?([eE]-?\d+)?\s*$")
            value = pc.cast(pc.if_else(number, pc.utf8_trim_whitespace(score_cells), "-inf"), pa.float64())
            faults[(faults == 0) & (np.asarray(value) < self.min_score)] = FAULTS.index("score")
        return raw_batch(
            en,
            table.column(self.zh),
            index,
            table.lines.numbers(),
            image=table.column(self.image) if self.image else None,
            fault=pa.array(FAULTS, TEXT).take(pa.array(faults)) if faults.any() else None,
        )


class Columns:
    """Lines cut at a delimiter, a byte; only the columns in use are copied."""

    def __init__(self, lines: Lines, delimiter: int) -> None:
        """Count the cells of every line."""
        self.lines, self._delimiter = lines, delimiter
        _, offsets, data = lines.text.buffers()
        self._offsets = np.frombuffer(offsets, np.int64)[: len(lines.text) + 1]
        self._data = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
        self.counts = np.empty(len(lines.text), np.int64)  # cells a line
        _count_cells(self._data, self._offsets, delimiter, self.counts)

    def column(self, number: int) -> pa.Array:
        """Cell `number` (1-based) of every line; "" where the line is too short."""
        starts, body = np.zeros(len(self._offsets), np.int64), np.empty(self._offsets[-1], np.uint8)
        _copy_cells(self._data, self._offsets, self._delimiter, number, starts, body)
        return pa.Array.from_buffers(
            TEXT, len(self.lines.text), [None, pa.py_buffer(starts), pa.py_buffer(body[: starts[-1]])]
        )


@njit
def _count_cells(data: Bytes, offsets: Offsets, delimiter: int, counts: Offsets) -> None:
    for line in range(len(counts)):
        counts[line] = 1
        for byte in data[offsets[line] : offsets[line + 1]]:
            counts[line] += byte == delimiter


@njit
def _copy_cells(data: Bytes, offsets: Offsets, delimiter: int, number: int, starts: Offsets, body: Bytes) -> None:
    written = 0
    for line in range(len(starts) - 1):
        cell = 1
        for byte in data[offsets[line] : offsets[line + 1]]:
            if byte == delimiter:
                cell += 1
                if cell > number:
                    break
            elif cell == number:
                body[written] = byte
                written += 1
        starts[line + 1] = written


@dataclass(frozen=True, kw_only=True)
class Csv(PairSource):
    """Columns by header name, or with `header: false` by 1-based number; cells may be quoted and hold line ends."""

    en: str | int = "en"
    zh: str | int = "zh"
    image: str | int = ""
    delimiter: str = ","
    header: bool = True
    quotes: bool = True  # false: a quote is text
    split_lines: bool = False  # cells hold verses, a line each, and pair line by line

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a record, or those of its verses."""
        text = read_text(root, path, self.encoding).replace("\0", "\ufffd")
        last_line, records = 0, 0
        for last_line, cells in self._records(text, path):
            records += 1
            if cells is None:
                yield Pair("", "", last_line, fault="columns")
            elif self.split_lines:
                yield from verse_pairs(cells[0].splitlines(), cells[1].splitlines(), last_line)
            else:
                yield Pair(cells[0], cells[1], last_line, image=cells[2] if self.image else "")
        if not self.split_lines and last_line > 100 and records * FEW_RECORDS < last_line:
            message = f"warning: {path}: {records} records in {last_line} lines"
            tqdm.write(f"{message}; if quotes are text, set `quotes: false`", file=sys.stderr)  # above a progress bar

    def _records(self, text: str, path: str) -> Iterator[tuple[int, list[str] | None]]:
        """(line where the record starts, cells of en, zh and image); None where the record has too few cells."""
        names = [name for name in (self.en, self.zh, self.image) if name]
        rows = _csv_rows(text, path, self.delimiter, self.quotes)
        header = (next(rows, (1, []))[1] or []) if self.header else None
        indices = column_indices(names, header, f"{path}:1")
        for line, row in rows:
            yield line, [row[index] for index in indices] if row and len(row) > max(indices) else None


def column_indices(names: list[str | int], header: list[str] | None, where: str) -> list[int]:
    """Where columns are, by name in the header or, where there is none, by 1-based number; UserError begins `where`."""
    if header is not None:
        missing = [name for name in names if str(name) not in header]
        if missing:
            raise UserError(f"{where}: no column {missing[0]!r}; the header has {', '.join(header)[:200]}")
        return [header.index(str(name)) for name in names]
    if not all(str(name).isdecimal() and int(name) > 0 for name in names):
        raise UserError(f"{where}: with `header: false`, columns are numbers from 1, not {names}")
    return [int(name) - 1 for name in names]


def _csv_rows(text: str, path: str, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (first line, cells) of every record that is not blank; None where a cell is longer than csv's limit."""
    if len(delimiter) != 1:
        raise UserError(f"{path}: delimiter {delimiter!r} is not one character")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    width = 0
    while True:
        line, row = reader.line_num + 1, None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            pass
        width = width or len(row or [])
        if reader.line_num - line >= MAX_CELL_LINES and _holds_rows(text, line, reader.line_num, delimiter, width):
            raise UserError(
                f"{path}:{line}: a quoted cell runs over {reader.line_num - line + 1} lines; close its quote, or set "
                "`quotes: false` where quotes are text"
            )
        if row is None or row:
            yield line, row


def _holds_rows(text: str, first: int, last: int, delimiter: str, width: int) -> bool:
    """Whether lines `first` to `last` are rows that a stray quote made one record, and not a long poem."""
    lines = text.split("\n")[first - 1 : last]
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:  # text after the closing quote, or none
        return True
    return width > 1 and 2 * sum(line.count(delimiter) == width - 1 for line in lines) > len(lines)


@dataclass(frozen=True, kw_only=True)
class Markdown(PairSource):
    """Tables of Markdown files: columns by header name or 1-based number; marks, links and code signs are dropped."""

    en: str | int = 1
    zh: str | int = 2

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a table row; a table without the columns is skipped, a short row is the reject `columns`."""
        lines, columns, any_table = read_text(root, path, self.encoding).split("\n"), list[int](), False
        for number, (line, after) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
            cells = [TABLE_MARKS.sub(r"\1", cell).strip() for cell in CELL_EDGE.split(line.strip().strip("|"))]
            if "|" not in line:
                columns = []
            elif TABLE_RULE.match(after):
                names = (self.en, self.zh)
                columns = [int(n) - 1 if str(n).isdecimal() else cells.index(str(n)) for n in names
                           if str(n).isdecimal() or n in cells]  # fmt: skip
                any_table = any_table or len(columns) == len(names)
            elif len(columns) == 2 and not TABLE_RULE.match(line):
                short = len(cells) <= max(columns)
                yield Pair("" if short else cells[columns[0]], "" if short else cells[columns[1]], number,
                           fault="columns" if short else "")  # fmt: skip
        if not any_table:
            raise UserError(f"{path}: no Markdown table with the columns {self.en!r} and {self.zh!r}")


def verse_pairs(en: list[str], zh: list[str], line: int) -> Iterator[Pair]:
    """A poem as pairs: the whole as sub 0, then each verse, where both sides have equally many lines."""
    en, zh = [v.strip() for v in en if v.strip()], [v.strip() for v in zh if v.strip()]
    yield Pair(" ".join(en), "".join(zh), line)
    if len(en) == len(zh) > 1:
        for number, (a, b) in enumerate(zip(en, zh, strict=True), 1):
            yield Pair(a, b, line, sub=number)
    elif len(en) != len(zh):
        yield Pair("\n".join(en), "\n".join(zh), line, sub=1, fault="unaligned_lines")
