"""Near duplicates: MinHash signatures of a pair's character n-grams, and their clusters by locality.

Decisions over all sources at once: one reason code a row, from stored scores and keys alone.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Ints, Mask, Text
from data.clean.hashing import Hashes, Keys, grams, mixed
from data.jit import compiled

HASHES = 48  # hash functions a signature; the estimate's deviation at 0.85 is 0.05
BANDS, ROWS_A_BAND = 8, 4  # two pairs with similarity 0.85 meet in some band with probability 0.997
EN_WIDTH, ZH_WIDTH = 4, 2
Signatures = npt.NDArray[np.uint8]  # [rows, HASHES]


@functools.cache
def _multipliers() -> Hashes:
    return np.random.default_rng(20260101).integers(0, 1 << 32, HASHES, np.uint32) | np.uint32(1)


def signatures(en: Text, zh: Text) -> Signatures:
    """The signature of each pair, its folded English and Chinese grams taken as one set, [rows, HASHES]."""
    result = np.empty((en.rows, HASHES), np.uint8)
    left, right = grams(en, EN_WIDTH), grams(zh, ZH_WIDTH)
    _signatures(left.hashes, left.starts, right.hashes, right.starts, _multipliers(), result)
    return result


@compiled
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


def near_repeats(table: Signatures, alive: Mask, threshold: float) -> Mask:
    """True for living rows whose estimated similarity to an earlier living row is at least `threshold`, [rows].

    Rows are compared with the first row of their band's bucket and with the one before them in it.
    """
    needed = int(np.ceil((threshold * (1 - 1 / 256) + 1 / 256) * HASHES))
    size = 1 << max(4, int(1.5 * alive.sum()).bit_length())

    def in_band(band: int) -> Mask:
        found, buckets = np.zeros(len(table), bool), np.full((size, 2), -1, np.int32)
        keys = np.ascontiguousarray(table[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND]).view(np.uint32).ravel()
        _in_band(table, keys, alive, needed, buckets, np.zeros(size, np.uint32), found)
        return found

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:  # two: each needs a table of buckets
        found: Mask = functools.reduce(np.bitwise_or, pool.map(in_band, range(BANDS)))
    return found


@compiled
def _in_band(
    table: Signatures,
    keys: Hashes,
    alive: Mask,
    needed: int,
    buckets: npt.NDArray[np.int32],
    bucket_keys: Hashes,
    found: Mask,
) -> None:
    """One band: the `buckets` [slots, (first row, last row)] of its keys [rows] are found by open addressing."""
    for row in range(len(table)):
        if not alive[row]:
            continue
        spread = (np.uint64(keys[row]) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)
        slot = np.int64(spread & np.uint64(len(buckets) - 1))
        while buckets[slot, 0] >= 0 and bucket_keys[slot] != keys[row]:
            slot = (slot + 1) & (len(buckets) - 1)
        first, last = buckets[slot]
        if first < 0:
            buckets[slot, 0], bucket_keys[slot] = row, keys[row]
        elif _agree(table, first, row, needed) or (last != first and _agree(table, last, row, needed)):
            found[row] = True
        buckets[slot, 1] = row


@compiled
def _agree(table: Signatures, one: int, other: int, needed: int) -> bool:
    """Whether two signatures agree in at least `needed` places."""
    same = 0
    for place in range(table.shape[1]):
        same += table[one, place] == table[other, place]
    return bool(same >= needed)


Codes = npt.NDArray[np.int8]
Rows = npt.NDArray[np.int32]


def first_of(keys: Keys, alive: Mask) -> Rows:
    """For each living row the first living row that has its key, itself if it is that one; -1 for others, [rows]."""
    firsts = np.full(len(keys), -1, np.int32)
    _first_of(keys, alive, np.full(1 << max(4, (2 * len(keys)).bit_length()), -1, np.int32), firsts)
    return firsts


@compiled
def _first_of(keys: Keys, alive: Mask, slots: Rows, firsts: Rows) -> None:
    last = np.uint64(len(slots) - 1)
    for row in range(len(keys)):
        if alive[row]:
            slot = keys[row] & last
            while slots[slot] >= 0 and keys[slots[slot]] != keys[row]:
                slot = (slot + np.uint64(1)) & last
            if slots[slot] < 0:
                slots[slot] = row
            firsts[row] = slots[slot]


def first_rows(keys: Keys, alive: Mask, allowed: npt.NDArray[np.int64]) -> Mask:
    """True for rows that are among the first `allowed` [rows] living rows of their key, and for dead ones, [rows]."""
    result = np.ones(len(keys), bool)
    _first_rows(first_of(keys, alive), allowed, np.zeros(len(keys), np.int32), result)
    return result


@compiled
def _first_rows(firsts: Rows, allowed: npt.NDArray[np.int64], seen: Rows, result: Mask) -> None:
    for row in range(len(firsts)):
        if firsts[row] >= 0:
            result[row] = seen[firsts[row]] < allowed[row]
            seen[firsts[row]] += 1


@dataclass(frozen=True)
class Split:
    """Rows of the held-out slice, and rows that must go because they share a sentence with it; both [rows]."""

    valid: Mask
    shared: Mask


def held_out(en: Keys, zh: Keys, record: Keys, domain: npt.NDArray[np.int16], alive: Mask, per_domain: int) -> Split:
    """Choose about `per_domain` living rows of every domain by the hash of their English, with all of their record.

    A domain gives at most a tenth of its rows. Rows elsewhere that share an English or Chinese side with a chosen
    one are `shared`: no sentence stands on both sides.
    """
    valid = np.zeros(len(en), bool)
    if not per_domain:
        return Split(valid, valid)
    groups = [first_of(keys, alive) for keys in (en, zh, record)]
    sizes = [np.bincount(group[alive], minlength=len(en)) for group in groups]
    unique = alive & (sizes[0][groups[0]] == 1) & (sizes[1][groups[1]] == 1)
    for code in np.unique(domain[alive]):
        inside = domain == code
        rows = np.flatnonzero(unique & inside)
        take = min(per_domain, int((alive & inside).sum()) // 10)
        order = rows[np.argsort(mixed(en[rows]), kind="stable")]
        _, heads = np.unique(groups[2][order], return_index=True)  # one candidate a record, the first by hash
        order = order[np.sort(heads)]
        valid[order[np.cumsum(sizes[2][groups[2][order]]) <= take]] = True
    valid |= alive & _touched(groups[2], valid)
    shared = alive & ~valid & (_touched(groups[0], valid) | _touched(groups[1], valid))
    return Split(valid, shared)


def _touched(firsts: Rows, chosen: Mask) -> Mask:
    """True for the rows that share their key with a chosen one, [rows]; `chosen` rows are living ones."""
    marked = np.zeros(len(firsts), bool)
    marked[firsts[chosen]] = True
    return marked[firsts] & (firsts >= 0)
