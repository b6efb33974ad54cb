"""Character n-grams of folded text as 32-bit hashes, for near duplicates and for overlap with benchmarks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Ints, Points, Text
from data.compiled import compiled

Hashes = npt.NDArray[np.uint32]
STEP = np.uint32(0x01000193)


@dataclass(frozen=True)
class Grams:
    """Hashes of all n-grams of a column: `starts` [rows + 1] into `hashes` [grams]."""

    hashes: Hashes
    starts: Ints

    def row_of(self) -> npt.NDArray[np.int32]:
        """The row of every gram, [grams]."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))


def grams(text: Text, width: int) -> Grams:
    """All `width`-grams of every row; a row shorter than `width` has none."""
    starts = np.zeros(text.rows + 1, np.int64)
    np.cumsum(np.maximum(text.lengths - (width - 1), 0), out=starts[1:])
    hashes = np.empty(starts[-1], np.uint32)
    _grams(text.points, text.starts, width, hashes)
    return Grams(hashes, starts)


@compiled
def scrambled(value: np.uint32) -> np.uint32:
    """A 32-bit finaliser (MurmurHash3's), so that every bit of a gram counts."""
    value = np.uint32(value ^ (value >> 16))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> 13))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> 16))


@compiled
def _grams(points: Points, starts: Ints, width: int, hashes: Hashes) -> None:
    mixed = np.empty(len(points), np.uint32)
    for place in range(len(points)):
        mixed[place] = scrambled(points[place])
    oldest = np.uint32(1)  # STEP ** width: what a character weighs that falls out of the window
    for _ in range(width):
        oldest = np.uint32(oldest * STEP)
    at = 0
    for row in range(len(starts) - 1):
        rolled = np.uint32(0)
        for place in range(starts[row], starts[row + 1]):
            rolled = np.uint32(rolled * STEP + mixed[place])
            if place >= starts[row] + width:
                rolled = np.uint32(rolled - mixed[place - width] * oldest)
            if place >= starts[row] + width - 1:
                hashes[at] = scrambled(rolled)
                at += 1
