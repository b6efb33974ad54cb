"""Tab-separated pairs: Tatoeba, WMT sets, WikiBio, any two columns of a table without quoting."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.command import UserError
from data.compiled import compiled
from data.pair import TEXT, raw_batch
from data.sources.lines import Bytes, Lines, Offsets, read_lines
from data.sources.source import FileSource

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
            table = Columns(lines)
            widest = max(widest, int(table.counts.max()))
            batch = self._batch(index, table)
            yield batch.slice(max(0, self.skip - lines.first + 1))
        if 0 < widest < (need := max(self.en, self.zh, self.image, self.score)):
            raise UserError(
                f"{path}: no line has column {need} (the widest has {widest}); mend `en`, `zh` or `image` "
                f"of source {self.name}"
            )

    def _batch(self, index: int, table: "Columns") -> pa.RecordBatch:
        counts = table.counts
        short = counts < max(self.en, self.zh, self.image, self.score)
        en, faults = table.column(self.en), np.zeros(len(counts), np.int8)
        if short.any():
            whole = table.lines.text.filter(pa.array(short))
            blank = np.asarray(pc.equal(pc.utf8_trim_whitespace(whole), ""))
            faults[short] = np.where(blank, FAULTS.index("blank"), FAULTS.index("columns"))
            en = pc.replace_with_mask(en, pa.array(short), whole)
        if self.score:
            given = pa.array(table.column(self.score))
            number = pc.match_substring_regex(given, r"^\s*-?\d+(\.\d+)?([eE]-?\d+)?\s*$")
            value = pc.cast(pc.if_else(number, pc.utf8_trim_whitespace(given), "-inf"), pa.float64())
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


@compiled
def _count_cells(data: Bytes, offsets: Offsets, counts: Offsets) -> None:
    for line in range(len(counts)):
        counts[line] = 1
        for byte in data[offsets[line] : offsets[line + 1]]:
            counts[line] += byte == TAB


@compiled
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
