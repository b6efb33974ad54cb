"""Decisions over all sources at once: one reason code a row, from stored scores and keys alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Mask
from data.clean.keys import Keys, mixed
from data.compiled import compiled

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
