"""Hashes of case-folded text, 64-bit keys of rows and 32-bit hashes of character n-grams, and duplicates by them.

Near duplicates by MinHash signatures with locality-sensitive hashing: own code, because signatures cover the n-grams of
both sides in one compiled pass; datasketch, rensa and Daft split text at spaces, which Chinese does not have.
"""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from data.clean import characters
from data.clean.characters import UNICODE, CodePoints, Ints, Mask, TextColumn
from data.jit import njit

RowHashes = npt.NDArray[np.uint64]
RowIndices = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint32]
HashValue = TypeVar("HashValue", npt.NDArray[np.uint64], np.uint64)
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
ROLLING_BASE = np.uint32(0x01000193)
NUM_HASHES = 48  # of a signature; the estimate's standard deviation at 0.85 is 0.05
BANDS, ROWS_A_BAND = 8, 4  # two pairs with similarity 0.85 meet in some band with probability 0.997
EN_WIDTH, ZH_WIDTH = 4, 2
Signatures = npt.NDArray[np.uint8]  # [rows, NUM_HASHES]


@cache
def casefold_table() -> CodePoints:
    """Code point -> its lower case if that is one character; 0 for all but letters, digits and Han, [UNICODE + 1]."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    for point in range(0x20000):
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    kept = characters.HAN | characters.LATIN | characters.DIGIT | characters.KANA | characters.OTHER
    table[(characters.char_classes() & kept) == 0] = 0
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


@cache
def _multipliers() -> Hashes:
    return np.random.default_rng(20260101).integers(0, 1 << 32, NUM_HASHES, np.uint32) | np.uint32(1)


def minhash_signatures(en: TextColumn, zh: TextColumn) -> Signatures:
    """The signature of each pair, the n-grams of both folded sides taken as one set, [rows, NUM_HASHES]."""
    result = np.empty((en.rows, NUM_HASHES), np.uint8)
    left, right = ngram_hashes(en, EN_WIDTH), ngram_hashes(zh, ZH_WIDTH)
    _signatures(left.hashes, left.starts, right.hashes, right.starts, _multipliers(), result)
    return result


@njit
def _signatures(
    left: Hashes, left_starts: Ints, right: Hashes, right_starts: Ints, multipliers: Hashes, result: Signatures
) -> None:
    least = np.empty(len(multipliers), np.uint32)
    for row in range(len(result)):
        least[:] = 0xFFFFFFFF
        for hashes, starts in ((left, left_starts), (right, right_starts)):
            for gram in hashes[starts[row] : starts[row + 1]]:
                for i in range(len(multipliers)):
                    least[i] = min(least[i], np.uint32(gram * multipliers[i]))
        for i in range(len(multipliers)):
            result[row, i] = np.uint32(least[i] * np.uint32(0x9E3779B1)) >> 24


def band_keys(table: Signatures, band: int) -> Hashes:
    """The key of a band of every signature, [rows]; rows are compared where theirs are equal."""
    return np.ascontiguousarray(table[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND]).view(np.uint32).ravel()


def near_duplicates(table: Signatures, band: int, threshold: float) -> Mask:
    """True for rows whose estimated similarity to an earlier row of their bucket is at least `threshold`, [rows].

    A bucket are the rows of one key of a band; a row is compared with its first and with the one before the row.
    """
    min_matches = int(np.ceil((threshold * (1 - 1 / 256) + 1 / 256) * NUM_HASHES))
    size = 1 << max(4, int(1.5 * len(table)).bit_length())
    buckets, bucket_keys = np.full((size, 2), -1, np.int32), np.zeros(size, np.uint32)
    duplicates = np.zeros(len(table), bool)
    _match_band(table, band_keys(table, band), min_matches, buckets, bucket_keys, duplicates)
    return duplicates


@njit
def _match_band(
    table: Signatures,
    keys: Hashes,
    min_matches: int,
    buckets: npt.NDArray[np.int32],
    bucket_keys: Hashes,
    duplicates: Mask,
) -> None:
    """One band: the `buckets` [slots, (first row, last row)] of the keys are found by open addressing."""
    for row in range(len(keys)):
        spread = (np.uint64(keys[row]) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)
        slot = np.int64(spread & np.uint64(len(buckets) - 1))
        while buckets[slot, 0] >= 0 and bucket_keys[slot] != keys[row]:
            slot = (slot + 1) & (len(buckets) - 1)
        first, last = buckets[slot]
        if first < 0:
            buckets[slot, 0], bucket_keys[slot] = row, keys[row]
        elif _is_match(table, first, row, min_matches) or (last != first and _is_match(table, last, row, min_matches)):
            duplicates[row] = True
        buckets[slot, 1] = row


@njit
def _is_match(table: Signatures, one: int, other: int, min_matches: int) -> bool:
    """Whether two signatures agree in at least `min_matches` hashes."""
    matches = 0
    for i in range(table.shape[1]):
        matches += table[one, i] == table[other, i]
    return bool(matches >= min_matches)


def first_n_per_key(keys: RowHashes, max_per_key: npt.NDArray[np.int64]) -> Mask:
    """True for the first `max_per_key` [rows] rows of their key, [rows]."""
    result = np.empty(len(keys), bool)
    _first_rows(_first_in(keys), max_per_key, np.zeros(len(keys), np.int32), result)
    return result


def is_alone(keys: RowHashes) -> Mask:
    """True for rows whose key no other row has, [rows]."""
    firsts = _first_in(keys)
    alone: Mask = np.bincount(firsts, minlength=len(keys))[firsts] == 1
    return alone


def _first_in(keys: RowHashes) -> RowIndices:
    """The index of the first of equal keys, for every key."""
    firsts = np.empty(len(keys), np.int32)
    _find_first(keys, np.full(1 << max(4, (2 * len(keys)).bit_length()), -1, np.int32), firsts)
    return firsts


@njit
def _find_first(keys: RowHashes, slots: RowIndices, firsts: RowIndices) -> None:
    last = np.uint64(len(slots) - 1)
    for row in range(len(keys)):
        slot = keys[row] & last
        while slots[slot] >= 0 and keys[slots[slot]] != keys[row]:
            slot = (slot + np.uint64(1)) & last
        if slots[slot] < 0:
            slots[slot] = row
        firsts[row] = slots[slot]


@njit
def _first_rows(firsts: RowIndices, allowed: npt.NDArray[np.int64], seen: RowIndices, result: Mask) -> None:
    for row in range(len(firsts)):
        result[row] = seen[firsts[row]] < allowed[row]
        seen[firsts[row]] += 1
