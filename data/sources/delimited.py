"""Tab-separated pairs: Tatoeba, WMT sets, WikiBio, any two columns of a table without quoting.

CSV with quotes and a header: pairs by column names, cells of several lines aligned or whole.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.cli import UserError
from data.jit import njit
from data.schema import TEXT, raw_batch
from data.sources.base import FileSource, Pair, PairSource
from data.sources.io import read_text
from data.sources.lines import Bytes, Lines, Offsets, read_lines

TAB = 9
FAULTS = ("", "blank", "columns", "score")


@dataclass(frozen=True, kw_only=True)
class Tsv(FileSource):
    """Columns by 1-based number. A line with too few columns is the reject `columns`; a blank line is `blank`."""

    en: int = 1
    zh: int = 2
    image: int = 0  # 0: no image column
    skip: int = 0  # header lines
    score: int = 0  # column of the publisher's own score (LASER margin of WikiMatrix, CCMatrix); 0: none
    min_score: float = 0.0  # rows under it are the reject `score`

    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Yield one batch a block of lines."""
        for key in ("en", "zh"):
            if getattr(self, key) < 1:
                raise UserError(f"source {self.name}: {key} is column {getattr(self, key)}; columns count from 1")
        widest = 0
        for lines in read_lines(root, path, self.encoding):
            table = TabColumns(lines)
            widest = max(widest, int(table.counts.max()))
            batch = self._batch(index, table)
            yield batch.slice(max(0, self.skip - lines.first + 1))
        if 0 < widest < (need := max(self.en, self.zh, self.image, self.score)):
            raise UserError(
                f"{path}: no line has column {need} (the widest has {widest}); mend `en`, `zh` or `image` "
                f"of source {self.name}"
            )

    def _batch(self, index: int, table: "TabColumns") -> pa.RecordBatch:
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


class TabColumns:
    """Lines cut at tabs; only the cells that are asked for are copied."""

    def __init__(self, lines: Lines) -> None:
        """Count the cells of every line."""
        self.lines = lines
        _, offsets, data = lines.text.buffers()
        self._offsets = np.frombuffer(offsets, np.int64)[: len(lines.text) + 1]
        self._data = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
        self.counts = np.empty(len(lines.text), np.int64)  # cells a line
        _count_cells(self._data, self._offsets, self.counts)

    def column(self, number: int) -> pa.Array:
        """Cell `number` (1-based) of every line; "" where the line is too short."""
        starts, body = np.zeros(len(self._offsets), np.int64), np.empty(self._offsets[-1], np.uint8)
        _copy_cells(self._data, self._offsets, number, starts, body)
        return pa.Array.from_buffers(
            TEXT, len(self.lines.text), [None, pa.py_buffer(starts), pa.py_buffer(body[: starts[-1]])]
        )


@njit
def _count_cells(data: Bytes, offsets: Offsets, counts: Offsets) -> None:
    for line in range(len(counts)):
        counts[line] = 1
        for byte in data[offsets[line] : offsets[line + 1]]:
            counts[line] += byte == TAB


@njit
def _copy_cells(data: Bytes, offsets: Offsets, number: int, starts: Offsets, body: Bytes) -> None:
    at = 0
    for line in range(len(starts) - 1):
        cell = 1
        for byte in data[offsets[line] : offsets[line + 1]]:
            if byte == TAB:
                cell += 1
                if cell > number:
                    break
            elif cell == number:
                body[at] = byte
                at += 1
        starts[line + 1] = at


@dataclass(frozen=True, kw_only=True)
class Csv(PairSource):
    """Columns by header name. `split_lines`: cells hold verses, a line each, and pair line by line."""

    en: str = "en"
    zh: str = "zh"
    image: str = ""
    delimiter: str = ","
    split_lines: bool = False

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a record, or those of its verses."""
        for line, cells in csv_records(
            read_text(root, path, self.encoding),
            path,
            self.delimiter,
            [name for name in (self.en, self.zh, self.image) if name],
        ):
            if cells is None:
                yield Pair("", "", line, fault="columns")
            elif self.split_lines:
                yield from verse_pairs(cells[0].splitlines(), cells[1].splitlines(), line)
            else:
                yield Pair(cells[0], cells[1], line, image=cells[2] if self.image else "")


def csv_records(text: str, path: str, delimiter: str, names: list[str]) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (line where the record starts, cells of `names`); None where the record has too few cells."""
    text = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(f"{path}:1: not a CSV header ({error}); is this the right file?") from error
    missing = [name for name in names if name not in header]
    if missing:
        raise UserError(f"{path}:1: no column {missing[0]!r}; the header has {', '.join(header)[:200]}")
    column_indices = [header.index(name) for name in names]
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:  # a cell longer than csv's limit
            yield line, None
            continue
        if row:
            yield line, [row[place] for place in column_indices] if len(row) > max(column_indices) else None


def verse_pairs(en: list[str], zh: list[str], line: int) -> Iterator[Pair]:
    """A poem as pairs: the whole as sub 0, then each verse, where both sides have equally many lines."""
    en, zh = [v.strip() for v in en if v.strip()], [v.strip() for v in zh if v.strip()]
    yield Pair(" ".join(en), "".join(zh), line)
    if len(en) == len(zh) > 1:
        for number, (a, b) in enumerate(zip(en, zh, strict=True), 1):
            yield Pair(a, b, line, sub=number)
    elif len(en) != len(zh):
        yield Pair("\n".join(en), "\n".join(zh), line, sub=1, fault="unaligned_lines")
