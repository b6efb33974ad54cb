"""Near duplicates: MinHash signatures of a pair's character n-grams, and their clusters by locality."""

from functools import cache

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Ints, Text
from data.clean.compiled import compiled
from data.clean.grams import Hashes, grams

HASHES = 48  # hash functions a signature; the estimate's deviation at 0.85 is 0.05
BANDS, ROWS_A_BAND = 8, 4  # two pairs with similarity 0.85 meet in some band with probability 0.997
EN_WIDTH, ZH_WIDTH = 4, 2
Signatures = npt.NDArray[np.uint8]  # [rows, HASHES]


@cache
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


def near_repeats(table: Signatures, alive: npt.NDArray[np.bool_], threshold: float) -> npt.NDArray[np.bool_]:
    """True for living rows whose estimated similarity to an earlier living row is at least `threshold`, [rows].

    Rows are compared with the first row of their band's bucket and with the one before them in it.
    """
    rows = np.flatnonzero(alive)
    found = np.zeros(len(table), bool)
    needed = int(np.ceil((threshold * (1 - 1 / 256) + 1 / 256) * HASHES))
    for band in range(BANDS):
        width = slice(band * ROWS_A_BAND, (band + 1) * ROWS_A_BAND)
        keys = np.ascontiguousarray(table[rows, width]).view(np.uint32).ravel()
        order = np.argsort(keys, kind="stable")
        ordered, sorted_rows = keys[order], rows[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
        fresh = np.ones(len(ordered), bool)
        fresh[again] = False
        first = np.maximum.accumulate(np.where(fresh, np.arange(len(ordered)), 0))
        for other in (first[again], again - 1):
            found[_alike(table, sorted_rows[again], sorted_rows[other], needed)] = True
    return found


def _alike(
    table: Signatures, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64], needed: int
) -> npt.NDArray[np.int64]:
    """Those of `rows` whose signature agrees with its partner's in at least `needed` places; in slices, for memory."""
    good = [
        rows[at : at + 262_144][
            np.count_nonzero(table[rows[at : at + 262_144]] == table[others[at : at + 262_144]], axis=1) >= needed
        ]
        for at in range(0, len(rows), 262_144)
    ]
    return np.concatenate(good) if good else rows
