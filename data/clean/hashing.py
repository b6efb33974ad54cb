"""Hashes of case-folded text: 64-bit keys of rows, 32-bit hashes of character n-grams."""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from data.clean.characters import DIGIT, HAN, KANA, LATIN, OTHER, UNICODE, CodePoints, Ints, TextColumn, char_classes
from data.jit import njit

RowHashes = npt.NDArray[np.uint64]
HashValue = TypeVar("HashValue", npt.NDArray[np.uint64], np.uint64)
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@cache
def casefold_table() -> CodePoints:
    """Code point -> its lower case if that is one character; 0 for all but letters, digits and Han, [UNICODE + 1]."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    for point in range(0x20000):
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    table[(char_classes() & (HAN | LATIN | DIGIT | KANA | OTHER)) == 0] = 0
    return table


def casefolded(text: TextColumn) -> TextColumn:
    """Letters, digits and Han characters in lower case, which is the same for two spellings of a sentence."""
    points, starts = np.empty(len(text.points), np.uint32), np.zeros(text.rows + 1, np.int64)
    _fold(text.points, text.starts, casefold_table(), points, starts)
    return TextColumn(points[: starts[-1]], starts)


@njit
def _fold(source: CodePoints, heads: Ints, table: CodePoints, points: CodePoints, starts: Ints) -> None:
    written = 0
    for row in range(len(starts) - 1):
        for point in source[heads[row] : heads[row + 1]]:
            points[written] = table[point]
            written += table[point] != 0
        starts[row + 1] = written


@njit
def splitmix64(value: HashValue) -> HashValue:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input changes every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def hash_rows(text: TextColumn) -> RowHashes:
    """A key of each row's characters in their order; the length is part of it, [rows]."""
    keys = np.empty(text.rows, np.uint64)
    _hash_rows(text.points, text.starts, keys)
    return keys


@njit
def _hash_rows(points: CodePoints, starts: Ints, keys: RowHashes) -> None:
    for row in range(len(keys)):
        total, power = np.uint64(0), np.uint64(1)
        for point in points[starts[row] : starts[row + 1]]:
            power *= GOLDEN_GAMMA
            total += splitmix64(np.uint64(point) + GOLDEN_GAMMA) * power
        keys[row] = splitmix64(total ^ np.uint64(starts[row + 1] - starts[row]))


Hashes = npt.NDArray[np.uint32]
ROLLING_BASE = np.uint32(0x01000193)


@dataclass(frozen=True)
class NgramHashes:
    """Hashes of all n-grams of a column: `starts` [rows + 1] into `hashes` [n-grams]."""

    hashes: Hashes
    starts: Ints

    def row_of(self) -> npt.NDArray[np.int32]:
        """The row of every n-gram, [n-grams]."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))


def ngram_hashes(text: TextColumn, width: int) -> NgramHashes:
    """All n-grams of `width` characters of every row; a shorter row has none."""
    starts = np.zeros(text.rows + 1, np.int64)
    np.cumsum(np.maximum(text.lengths - (width - 1), 0), out=starts[1:])
    hashes = np.empty(starts[-1], np.uint32)
    _ngram_hashes(text.points, text.starts, width, hashes)
    return NgramHashes(hashes, starts)


@njit
def fmix32(value: np.uint32) -> np.uint32:
    """MurmurHash3's 32-bit finaliser."""
    value = np.uint32(value ^ (value >> 16))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> 13))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> 16))


@njit
def _ngram_hashes(points: CodePoints, starts: Ints, width: int, hashes: Hashes) -> None:
    char_hashes = np.empty(len(points), np.uint32)
    for i in range(len(points)):
        char_hashes[i] = fmix32(points[i])
    oldest = np.uint32(1)  # ROLLING_BASE ** width: the factor of the character that leaves the window
    for _ in range(width):
        oldest = np.uint32(oldest * ROLLING_BASE)
    written = 0
    for row in range(len(starts) - 1):
        rolled = np.uint32(0)
        for i in range(starts[row], starts[row + 1]):
            rolled = np.uint32(rolled * ROLLING_BASE + char_hashes[i])
            if i >= starts[row] + width:
                rolled = np.uint32(rolled - char_hashes[i - width] * oldest)
            if i >= starts[row] + width - 1:
                hashes[written] = fmix32(rolled)
                written += 1
