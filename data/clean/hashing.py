"""Sixty-four-bit keys of normal forms, for exact duplicates, benchmarks and the held-out slice.

Character n-grams of folded text as 32-bit hashes, for near duplicates and for overlap with benchmarks.
"""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from data.clean.characters import DIGIT, HAN, KANA, LATIN, OTHER, flags
from data.clean.codepoints import UNICODE, Ints, Points, Text
from data.jit import compiled

Keys = npt.NDArray[np.uint64]
Key = TypeVar("Key", npt.NDArray[np.uint64], np.uint64)
ODD = np.uint64(0x9E3779B97F4A7C15)


@cache
def folding() -> Points:
    """Code point -> its lower case, one character to one; 0 for what is no letter, digit or Han character."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    for point in range(0x20000):
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    table[(flags() & (HAN | LATIN | DIGIT | KANA | OTHER)) == 0] = 0
    return table


def folded(text: Text) -> Text:
    """Letters, digits and Han characters in lower case: what two spellings of one sentence share."""
    points, starts = np.empty(len(text.points), np.uint32), np.zeros(text.rows + 1, np.int64)
    _fold(text.points, text.starts, folding(), points, starts)
    return Text(points[: starts[-1]], starts)


@compiled
def _fold(source: Points, heads: Ints, table: Points, points: Points, starts: Ints) -> None:
    at = 0
    for row in range(len(starts) - 1):
        for point in source[heads[row] : heads[row + 1]]:
            points[at] = table[point]
            at += table[point] != 0
        starts[row + 1] = at


@compiled
def mixed(value: Key) -> Key:
    """SplitMix64's finaliser: equal in, equal out, every bit of the input moves every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def row_keys(text: Text) -> Keys:
    """A key of each row's characters in their order, [rows]; rows of other lengths never share a prefix's key."""
    keys = np.empty(text.rows, np.uint64)
    _row_keys(text.points, text.starts, keys)
    return keys


@compiled
def _row_keys(points: Points, starts: Ints, keys: Keys) -> None:
    for row in range(len(keys)):
        total, power = np.uint64(0), np.uint64(1)
        for point in points[starts[row] : starts[row + 1]]:
            power *= ODD
            total += mixed(np.uint64(point) + ODD) * power
        keys[row] = mixed(total ^ np.uint64(starts[row + 1] - starts[row]))


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
