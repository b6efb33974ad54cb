"""Character n-grams of folded text as 32-bit hashes, for near duplicates and for overlap with benchmarks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Ints, Text

Hashes = npt.NDArray[np.uint32]
STEP = np.uint32(0x01000193)


@dataclass(frozen=True)
class Grams:
    """Hashes of all n-grams of a column: `starts` [rows + 1] into `hashes` [grams]."""

    hashes: Hashes
    starts: Ints

    @property
    def counts(self) -> Ints:
        """Grams a row, [rows]."""
        return np.diff(self.starts)

    def row_of(self) -> npt.NDArray[np.int32]:
        """The row of every gram, [grams]."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), self.counts)


def grams(text: Text, width: int) -> Grams:
    """All `width`-grams of every row; a row shorter than `width` has none."""
    lengths = text.lengths
    counts = np.maximum(lengths - (width - 1), 0)
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    points = scrambled(text.points)
    size = max(len(points) - width + 1, 0)
    rolled = points[:size].copy()
    for step in range(1, width):
        rolled *= STEP
        rolled ^= points[step : step + size]
    if len(points):
        inside = np.ones(len(points), bool)
        for step in range(1, width):  # the last width - 1 places of a row start no gram
            at = text.starts[1:][lengths >= step] - step
            inside[at] = False
        rolled = rolled[inside[:size]]
    return Grams(scrambled(rolled), starts)


def scrambled(values: Hashes) -> Hashes:
    """A 32-bit finaliser (MurmurHash3's), so that every bit of a gram counts."""
    values = values ^ (values >> np.uint32(16))
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values
