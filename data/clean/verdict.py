"""Decisions over all sources at once: one reason code a row, from stored scores and keys alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.clean.keys import Keys, mixed

Codes = npt.NDArray[np.int8]


def first_rows(keys: Keys, alive: npt.NDArray[np.bool_], allowed: int | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """True for rows that are among the first `allowed` (one number, or [rows]) living rows of their key, [rows]."""
    result = np.ones(len(keys), bool)
    rows = np.flatnonzero(alive)
    order = rows[np.argsort(keys[rows], kind="stable")]
    ordered = keys[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    start = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
    result[order] = np.arange(len(order)) - start < (allowed if isinstance(allowed, int) else allowed[order])
    return result


@dataclass(frozen=True)
class Split:
    """Rows of the held-out slice, and rows that must go because they share a sentence with it; both [rows]."""

    valid: npt.NDArray[np.bool_]
    shared: npt.NDArray[np.bool_]


def held_out(
    en: Keys, zh: Keys, record: Keys, domain: npt.NDArray[np.int16], alive: npt.NDArray[np.bool_], per_domain: int
) -> Split:
    """Choose about `per_domain` living rows of every domain by the hash of their English, with all of their record.

    A domain gives at most a tenth of its rows. Rows elsewhere that share an English or Chinese side with a chosen
    one are `shared`: no sentence stands on both sides.
    """
    valid = np.zeros(len(en), bool)
    unique = alive & first_alone(en, alive) & first_alone(zh, alive)
    for code in np.unique(domain[alive]):
        rows = np.flatnonzero(alive & (domain == code))
        take = min(per_domain, len(rows) // 10)
        _, which, sizes = np.unique(record[rows], return_inverse=True, return_counts=True)
        order = np.argsort(mixed(en[rows]), kind="stable")
        order = order[unique[rows[order]]]
        _, heads = np.unique(which[order], return_index=True)  # one candidate a record, the first by hash
        order = order[np.sort(heads)]
        chosen = order[np.cumsum(sizes[which[order]]) <= take]
        valid[rows[chosen]] = True
    valid |= alive & np.isin(record, record[valid])
    shared = alive & ~valid & (np.isin(en, en[valid]) | np.isin(zh, zh[valid]))
    return Split(valid, shared)


def first_alone(keys: Keys, alive: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """True for living rows whose key no other living row has, [rows]."""
    result = np.zeros(len(keys), bool)
    rows = np.flatnonzero(alive)
    order = rows[np.argsort(keys[rows], kind="stable")]
    same = keys[order][1:] == keys[order][:-1]
    alone = np.ones(len(order), bool)
    alone[1:] &= ~same
    alone[:-1] &= ~same
    result[order] = alone
    return result
