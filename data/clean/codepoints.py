"""Text columns as arrays of code points, so that cleaning is array arithmetic and never a loop over rows."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.pair import TEXT

Points = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Item = TypeVar("Item", bound=np.generic)
UNICODE = 0x110000  # one more than the last code point


@dataclass(frozen=True)
class Text:
    """A column of strings: `points` [characters], `starts` [rows + 1] into it."""

    points: Points
    starts: Ints

    @property
    def rows(self) -> int:
        """Number of strings."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Characters a row, [rows]."""
        return np.diff(self.starts)

    def keep(self, mask: Mask) -> "Text":
        """Drop the characters where `mask` [characters] is false."""
        if mask.all():
            return self
        return Text(self.points[mask], before(mask)[self.starts])

    def total(self, values: npt.NDArray[np.generic]) -> Ints:
        """Sum of `values` [characters] in every row, [rows]."""
        sums = before(values)
        return sums[self.starts[1:]] - sums[self.starts[:-1]]

    def firsts(self) -> Mask:
        """True at the first character of every non-empty row, [characters]."""
        mask = np.zeros(len(self.points) + 1, bool)
        mask[self.starts[:-1]] = True
        return mask[:-1]

    def lasts(self) -> Mask:
        """True at the last character of every non-empty row, [characters]."""
        mask = np.zeros(len(self.points) + 1, bool)
        mask[self.starts[1:]] = True
        return mask[1:]

    def row_of(self) -> npt.NDArray[np.int32]:
        """The row of every character, [characters]."""
        return np.repeat(np.arange(self.rows, dtype=np.int32), self.lengths)


def before(values: npt.NDArray[np.generic]) -> Ints:
    """Running sums that start at 0, [n + 1]."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def previous(values: npt.NDArray[Item]) -> npt.NDArray[Item]:
    """`values` moved one place right, with 0 first."""
    moved = np.zeros_like(values)
    moved[1:] = values[:-1]
    return moved


def following(values: npt.NDArray[Item]) -> npt.NDArray[Item]:
    """`values` moved one place left, with 0 last."""
    moved = np.zeros_like(values)
    moved[:-1] = values[1:]
    return moved


def decode(column: pa.Array) -> Text:
    """An Arrow string column without nulls as code points."""
    column = column.cast(TEXT)
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    if len(offsets) == 0 or offsets[0] == offsets[-1]:
        return Text(np.zeros(0, np.uint32), np.zeros(len(column) + 1, np.int64))
    data = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    points = np.frombuffer(str(data.tobytes(), "utf-8").encode("utf-32-le"), np.uint32)
    if len(points) == len(data):
        return Text(points, offsets - offsets[0])
    return Text(points, before((data & 0xC0) != 0x80)[offsets - offsets[0]])


def encode(text: Text) -> pa.Array:
    """Code points as an Arrow string column."""
    points = text.points
    body = points.tobytes().decode("utf-32-le").encode("utf-8")
    if len(body) == len(points):
        offsets = text.starts
    else:
        widths = 1 + (points > 0x7F).astype(np.uint8) + (points > 0x7FF) + (points > 0xFFFF)
        offsets = before(widths)[text.starts]
    return pa.Array.from_buffers(TEXT, text.rows, [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(body)])
