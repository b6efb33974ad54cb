"""Tab-separated pairs: Tatoeba, WMT sets, WikiBio, any two columns of a table without quoting."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.command import UserError
from data.pair import raw_batch
from data.sources.lines import Lines, read_lines
from data.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class Tsv(Source):
    """Columns by 1-based number. A line with too few columns is the reject `columns`; a blank line is `blank`."""

    files: tuple[str, ...]
    en: int = 1
    zh: int = 2
    image: int = 0  # 0: no image column
    skip: int = 0  # header lines
    score: int = 0  # column of the publisher's own score (LASER margin of WikiMatrix, CCMatrix); 0: none
    min_score: float = 0.0  # rows under it are the reject `score`

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in order."""
        return self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one batch a block of lines."""
        for key in ("en", "zh"):
            if getattr(self, key) < 1:
                raise UserError(f"source {self.name}: {key} is column {getattr(self, key)}; columns count from 1")
        for index, path in enumerate(self.files):
            widest = 0
            for lines in read_lines(root, path, self.encoding):
                table = split_columns(lines)
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
        blank = pc.equal(pc.utf8_trim_whitespace(table.lines.text), "").to_numpy(zero_copy_only=False)
        short = counts < max(self.en, self.zh, self.image, self.score)
        fault = np.where(blank, "blank", np.where(short, "columns", ""))
        if self.score:
            given = pa.array(table.column(self.score))
            number = pc.match_substring_regex(given, r"^\s*-?\d+(\.\d+)?([eE]-?\d+)?\s*$")
            value = pc.cast(pc.if_else(number, pc.utf8_trim_whitespace(given), "-inf"), pa.float64())
            low = np.asarray(value) < self.min_score
            fault = np.where((fault == "") & low, "score", fault)
        whole = table.lines.text
        return raw_batch(
            pc.if_else(pa.array(short), whole, table.column(self.en)),
            table.column(self.zh),
            index,
            table.lines.numbers(),
            image=table.column(self.image) if self.image else None,
            fault=pa.array(fault),
        )


@dataclass(frozen=True)
class Columns:
    """Lines split at tabs."""

    lines: Lines
    cells: pa.Array  # large_string [all cells]
    starts: np.ndarray  # int64 [lines + 1], into cells

    @property
    def counts(self) -> np.ndarray:
        """Cells a line, int64 [lines]."""
        return np.diff(self.starts)

    def column(self, number: int) -> pa.Array:
        """Cell `number` (1-based) of every line; "" where the line is too short."""
        at = self.starts[:-1] + number - 1
        present = at < self.starts[1:]
        taken = self.cells.take(pa.array(np.where(present, at, 0)))
        return taken if present.all() else pc.if_else(pa.array(present), taken, "")


def split_columns(lines: Lines) -> Columns:
    """Cut every line at its tabs, for all lines at once."""
    lists = pc.split_pattern(lines.text, "\t")
    offsets = np.asarray(lists.offsets, dtype=np.int64)
    return Columns(lines, lists.flatten(), offsets - offsets[0])
