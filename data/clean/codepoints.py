"""Text columns as arrays of code points, so that cleaning is compiled loops and no Python a row."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.jit import njit
from data.schema import TEXT

CodePoints = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
UNICODE = 0x110000  # one more than the last code point


@dataclass(frozen=True)
class TextColumn:
    """A column of strings: `points` [characters], `starts` [rows + 1] into it."""

    points: CodePoints
    starts: Ints

    @property
    def rows(self) -> int:
        """Number of strings."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Characters a row, [rows]."""
        return np.diff(self.starts)


def decode(column: pa.Array) -> TextColumn:
    """An Arrow string column without nulls as code points."""
    column = column.cast(TEXT)
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    if len(offsets) == 0 or offsets[0] == offsets[-1]:
        return TextColumn(np.zeros(0, np.uint32), np.zeros(len(column) + 1, np.int64))
    data = np.frombuffer(column.buffers()[2], np.uint8)
    points, starts = np.empty(offsets[-1] - offsets[0], np.uint32), np.zeros(len(offsets), np.int64)
    _decode(data, offsets, points, starts)
    return TextColumn(points[: starts[-1]], starts)


@njit
def _decode(data: npt.NDArray[np.uint8], offsets: Ints, points: CodePoints, starts: Ints) -> None:
    at = 0
    for row in range(len(offsets) - 1):
        place = offsets[row]
        while place < offsets[row + 1]:
            point, more = np.uint32(data[place]), 0
            if point >= 0xF0:
                point, more = point & 0x07, 3
            elif point >= 0xE0:
                point, more = point & 0x0F, 2
            elif point >= 0xC0:
                point, more = point & 0x1F, 1
            for step in range(1, more + 1):
                point = (point << 6) | (data[place + step] & 0x3F)
            points[at] = point
            at += 1
            place += 1 + more
        starts[row + 1] = at


def encode(text: TextColumn) -> pa.Array:
    """Code points as an Arrow string column."""
    body, offsets = np.empty(4 * len(text.points), np.uint8), np.zeros(text.rows + 1, np.int64)
    _encode(text.points, text.starts, body, offsets)
    return pa.Array.from_buffers(TEXT, text.rows, [None, pa.py_buffer(offsets), pa.py_buffer(body[: offsets[-1]])])


@njit
def _encode(points: CodePoints, starts: Ints, body: npt.NDArray[np.uint8], offsets: Ints) -> None:
    at = 0
    for row in range(len(starts) - 1):
        for point in points[starts[row] : starts[row + 1]]:
            if point < 0x80:
                body[at] = point
                at += 1
                continue
            if point < 0x800:
                body[at], more = 0xC0 | (point >> 6), 1
            elif point < 0x10000:
                body[at], more = 0xE0 | (point >> 12), 2
            else:
                body[at], more = 0xF0 | (point >> 18), 3
            for step in range(1, more + 1):
                body[at + step] = 0x80 | ((point >> (6 * (more - step))) & 0x3F)
            at += 1 + more
        offsets[row + 1] = at


def rows_with(text: TextColumn, characters: Mask) -> Mask:
    """True for the rows with at least one of `characters` [UNICODE + 1], [rows]."""
    found = np.zeros(text.rows, bool)
    _mark_rows_with(text.points, text.starts, characters, found)
    return found


@njit
def _mark_rows_with(points: CodePoints, starts: Ints, characters: Mask, found: Mask) -> None:
    for row in range(len(found)):
        for place in range(starts[row], starts[row + 1]):
            if characters[points[place]]:
                found[row] = True
                break


def take_rows(text: TextColumn, rows: Ints) -> TextColumn:
    """Some rows of a text column, in the order given."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(text.lengths[rows], out=starts[1:])
    points = np.empty(starts[-1], np.uint32)
    _copy(text.points, text.starts[rows], points, starts)
    return TextColumn(points, starts)


@njit
def _copy(source: CodePoints, heads: Ints, target: CodePoints, starts: Ints) -> None:
    for row in range(len(heads)):
        for step in range(starts[row + 1] - starts[row]):
            target[starts[row] + step] = source[heads[row] + step]


def replace_rows(text: TextColumn, rows: Ints, new: TextColumn) -> TextColumn:
    """`text` with `new[i]` in the place of row `rows[i]`; `rows` ascend."""
    lengths, starts = text.lengths, np.zeros(text.rows + 1, np.int64)
    lengths[rows] = new.lengths
    np.cumsum(lengths, out=starts[1:])
    points = np.empty(starts[-1], np.uint32)
    _replace(text.points, text.starts, rows, new.points, new.starts, points, starts)
    return TextColumn(points, starts)


@njit
def _replace(
    old: CodePoints, heads: Ints, rows: Ints, new: CodePoints, new_heads: Ints, points: CodePoints, starts: Ints
) -> None:
    done = 0
    for place in range(len(rows)):
        row = rows[place]
        points[starts[done] : starts[row]] = old[heads[done] : heads[row]]  # the rows that stay, at once
        points[starts[row] : starts[row + 1]] = new[new_heads[place] : new_heads[place + 1]]
        done = row + 1
    points[starts[done] :] = old[heads[done] :]
