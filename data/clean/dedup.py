"""Duplicates over all sources: MinHash signatures and locality-sensitive hashing, exact keys, the held-out split.

Own code, because signatures cover the character n-grams of both sides in one compiled pass; the MinHash of datasketch,
rensa or Daft splits text at spaces, which Chinese does not have.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Ints, Mask, TextColumn
from data.clean.hashing import Hashes, RowHashes, ngram_hashes, splitmix64
from data.jit import njit

NUM_HASHES = 48  # of a signature; the estimate's standard deviation at 0.85 is 0.05
BANDS, ROWS_A_BAND = 8, 4  # two pairs with similarity 0.85 meet in some band with probability 0.997
EN_WIDTH, ZH_WIDTH = 4, 2
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
    size = 1 << max(4, int(1.5 * active.sum()).bit_length())

    def in_band(band: int) -> Mask:
        found, buckets = np.zeros(len(table), bool), np.full((size, 2), -1, np.int32)
        keys = np.ascontiguousarray(table[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND]).view(np.uint32).ravel()
        _match_band(table, keys, active, min_matches, buckets, np.zeros(size, np.uint32), found)
        return found

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:  # two: each needs a table of buckets
        duplicates: Mask = functools.reduce(np.bitwise_or, pool.map(in_band, range(BANDS)))
    return duplicates


@njit
def _match_band(
    table: Signatures,
    keys: Hashes,
    active: Mask,
    min_matches: int,
    buckets: npt.NDArray[np.int32],
    bucket_keys: Hashes,
    duplicates: Mask,
) -> None:
    """One band: the `buckets` [slots, (first row, last row)] of its keys [rows] are found by open addressing."""
    for row in range(len(table)):
        if not active[row]:
            continue
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


def first_occurrence(keys: RowHashes, active: Mask) -> RowIndices:
    """The first active row with the key of each active row, which may be itself; -1 for other rows, [rows]."""
    firsts = np.full(len(keys), -1, np.int32)
    _first_of(keys, active, np.full(1 << max(4, (2 * len(keys)).bit_length()), -1, np.int32), firsts)
    return firsts


@njit
def _first_of(keys: RowHashes, active: Mask, slots: RowIndices, firsts: RowIndices) -> None:
    last = np.uint64(len(slots) - 1)
    for row in range(len(keys)):
        if active[row]:
            slot = keys[row] & last
            while slots[slot] >= 0 and keys[slots[slot]] != keys[row]:
                slot = (slot + np.uint64(1)) & last
            if slots[slot] < 0:
                slots[slot] = row
            firsts[row] = slots[slot]


def first_n_per_key(keys: RowHashes, active: Mask, max_per_key: npt.NDArray[np.int64]) -> Mask:
    """True for the first `max_per_key` [rows] active rows of their key, and for inactive rows, [rows]."""
    result = np.ones(len(keys), bool)
    _first_rows(first_occurrence(keys, active), max_per_key, np.zeros(len(keys), np.int32), result)
    return result


@njit
def _first_rows(firsts: RowIndices, allowed: npt.NDArray[np.int64], seen: RowIndices, result: Mask) -> None:
    for row in range(len(firsts)):
        if firsts[row] >= 0:
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
    groups = [first_occurrence(keys, active) for keys in (en, zh, record)]
    sizes = [np.bincount(group[active], minlength=len(en)) for group in groups]
    unique = active & (sizes[0][groups[0]] == 1) & (sizes[1][groups[1]] == 1)
    for code in np.unique(domain[active]):
        inside = domain == code
        rows = np.flatnonzero(unique & inside)
        take = min(per_domain, int((active & inside).sum()) // 10)
        order = rows[np.argsort(splitmix64(en[rows]), kind="stable")]
        _, heads = np.unique(groups[2][order], return_index=True)  # one candidate a record, the first by hash
        order = order[np.sort(heads)]
        valid[order[np.cumsum(sizes[2][groups[2][order]]) <= take]] = True
    valid |= active & _shares_key(groups[2], valid)
    shared = active & ~valid & (_shares_key(groups[0], valid) | _shares_key(groups[1], valid))
    return HeldOutSplit(valid, shared)


def _shares_key(firsts: RowIndices, chosen: Mask) -> Mask:
    """True for the rows that share their key with a chosen row, [rows]; `chosen` rows are active."""
    marked = np.zeros(len(firsts), bool)
    marked[firsts[chosen]] = True
    return marked[firsts] & (firsts >= 0)
