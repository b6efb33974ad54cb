"""Duplicates over all sources: MinHash signatures and locality-sensitive hashing, exact keys, the held-out split.

Own code, because signatures cover the character n-grams of both sides in one compiled pass; the MinHash of datasketch,
rensa or Daft splits text at spaces, which Chinese does not have.
"""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.characters import Ints, Mask, TextColumn
from data.clean.hashing import Hashes, RowHashes, ngram_hashes, splitmix64
from data.jit import njit

NUM_HASHES = 48  # of a signature; the estimate's standard deviation at 0.85 is 0.05
BANDS, ROWS_A_BAND = 8, 4  # two pairs with similarity 0.85 meet in some band with probability 0.997
EN_WIDTH, ZH_WIDTH = 4, 2
PARTITION_ROWS = 1 << 21  # rows whose keys are compared at a time
Signatures = npt.NDArray[np.uint8]  # [rows, NUM_HASHES]


@functools.cache
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
                for place in range(len(multipliers)):
                    least[place] = min(least[place], np.uint32(gram * multipliers[place]))
        for place in range(len(multipliers)):
            result[row, place] = np.uint32(least[place] * np.uint32(0x9E3779B1)) >> 24


def near_duplicates(table: Signatures, active: Mask, threshold: float) -> Mask:
    """True for active rows whose estimated similarity to an earlier active row is at least `threshold`, [rows].

    Rows are compared with the first row of their band's bucket and with the one before them in it.
    """
    min_matches = int(np.ceil((threshold * (1 - 1 / 256) + 1 / 256) * NUM_HASHES))

    def in_band(band: int) -> Mask:
        duplicates = np.zeros(len(table), bool)
        keys = np.ascontiguousarray(table[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND]).view(np.uint32).ravel()
        for rows in partitions(keys, active):
            size = 1 << max(4, int(1.5 * len(rows)).bit_length())
            buckets, bucket_keys = np.full((size, 2), -1, np.int32), np.zeros(size, np.uint32)
            _match_band(table, keys, rows, min_matches, buckets, bucket_keys, duplicates)
        return duplicates

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:  # two: each needs a table of buckets
        duplicates: Mask = functools.reduce(np.bitwise_or, pool.map(in_band, range(BANDS)))
    return duplicates


def partitions(keys: npt.NDArray[np.uint32] | RowHashes, active: Mask) -> Iterator[Ints]:
    """The active rows in groups of about PARTITION_ROWS that share no key, ascending inside a group.

    Hash tables are made for one group at a time: their memory does not grow with the corpus.
    """
    bits = int(active.sum() // PARTITION_ROWS).bit_length()
    if not bits:
        yield np.flatnonzero(active)
        return
    group = (keys >> keys.dtype.type(8 * keys.dtype.itemsize - bits)).astype(np.uint16)
    for number in range(1 << bits):
        yield np.flatnonzero(active & (group == number))


@njit
def _match_band(
    table: Signatures,
    keys: Hashes,
    rows: Ints,
    min_matches: int,
    buckets: npt.NDArray[np.int32],
    bucket_keys: Hashes,
    duplicates: Mask,
) -> None:
    """One band: the `buckets` [slots, (first row, last row)] of the keys of `rows` are found by open addressing."""
    for row in rows:
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
    for place in range(table.shape[1]):
        matches += table[one, place] == table[other, place]
    return bool(matches >= min_matches)


ReasonCodes = npt.NDArray[np.int8]
RowIndices = npt.NDArray[np.int32]


def first_n_per_key(keys: RowHashes, active: Mask, max_per_key: npt.NDArray[np.int64]) -> Mask:
    """True for the first `max_per_key` [rows] active rows of their key, and for inactive rows, [rows]."""
    result = np.ones(len(keys), bool)
    for rows in partitions(keys, active):
        kept = np.empty(len(rows), bool)
        _first_rows(_first_in(keys[rows]), max_per_key[rows], np.zeros(len(rows), np.int32), kept)
        result[rows] = kept
    return result


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


@dataclass(frozen=True)
class HeldOutSplit:
    """Held-out rows, and rows to reject because they share a sentence with them; both [rows]."""

    valid: Mask
    shared: Mask


def split_held_out(
    en: RowHashes, zh: RowHashes, record: RowHashes, domain: npt.NDArray[np.int16], active: Mask, per_domain: int
) -> HeldOutSplit:
    """Choose about `per_domain` active rows of every domain by the hash of their English, with all of their record.

    A domain gives at most a tenth of its rows. Rows elsewhere that share an English or Chinese side with a chosen
    one are `shared`: no sentence is on both sides.
    """
    valid = np.zeros(len(en), bool)
    if not per_domain:
        return HeldOutSplit(valid, valid)
    alone = _is_alone(en, active) & _is_alone(zh, active)
    for code in range(int(domain.max(initial=-1)) + 1):
        inside = active & (domain == code)
        take = min(per_domain, int(inside.sum()) // 10)
        candidates = _records_of_smallest_hash(np.flatnonzero(alone & inside), en, record, take)
        sizes = _rows_per_key(record, active, record[candidates])
        valid[candidates[np.cumsum(sizes) <= take]] = True
    valid |= active & _has_key(record, record[valid])
    shared = active & ~valid & (_has_key(en, en[valid]) | _has_key(zh, zh[valid]))
    return HeldOutSplit(valid, shared)


def _is_alone(keys: RowHashes, active: Mask) -> Mask:
    """True for active rows whose key no other active row has, [rows]."""
    result = np.zeros(len(keys), bool)
    for rows in partitions(keys, active):
        firsts = _first_in(keys[rows])
        result[rows] = np.bincount(firsts, minlength=len(rows))[firsts] == 1
    return result


def _records_of_smallest_hash(rows: Ints, en: RowHashes, record: RowHashes, count: int) -> Ints:
    """One row of each of at least `count` records, or of all, by the hash of the English."""
    for limit in (64 * count, len(rows)):  # rows of few records are rare: then all rows are sorted
        smallest = rows[:0]
        for start in range(0, len(rows), PARTITION_ROWS):
            smallest = np.concatenate([smallest, rows[start : start + PARTITION_ROWS]])
            if len(smallest) > limit:
                smallest = smallest[np.argpartition(splitmix64(en[smallest]), limit)[:limit]]
        smallest = smallest[np.argsort(splitmix64(en[smallest]), kind="stable")]
        _, heads = np.unique(record[smallest], return_index=True)
        if len(heads) >= count:
            break
    return smallest[np.sort(heads)]


def _rows_per_key(keys: RowHashes, active: Mask, wanted: RowHashes) -> Ints:
    """How many active rows have each of the distinct keys `wanted`."""
    rows = np.flatnonzero(active & _has_key(keys, wanted))
    found, counts = np.unique(keys[rows], return_counts=True)
    return counts[np.searchsorted(found, wanted)]


def _has_key(keys: RowHashes, wanted: RowHashes) -> Mask:
    """True for the rows that have one of the few keys `wanted`, [rows]."""
    result, wanted = np.zeros(len(keys), bool), np.unique(wanted)
    for start in range(0, len(keys) if len(wanted) else 0, PARTITION_ROWS):
        block = keys[start : start + PARTITION_ROWS]
        i = np.minimum(np.searchsorted(wanted, block), len(wanted) - 1)
        result[start : start + PARTITION_ROWS] = wanted[i] == block
    return result
