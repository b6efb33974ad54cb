"""The rows held out of every domain: whole records, of which no sentence stands elsewhere."""

from dataclasses import dataclass

import numpy as np

from data.build.row_streams import KEY_COLUMNS, RowStreams
from data.clean.characters import Mask
from data.clean.dedup import is_alone
from data.clean.hashing import RowHashes, splitmix64

RECORD_ROWS = 64  # rows of a record; more are rare, and cost another reading


@dataclass(frozen=True)
class HeldOutSplit:
    """Held-out rows, and rows to reject because they share a sentence with them; both [rows]."""

    valid: Mask
    shared: Mask


def split_held_out(rows: RowStreams, active: Mask, domains: list[str], per_domain: int) -> HeldOutSplit:
    """Choose about `per_domain` active rows of every domain by the hash of their English, with all of their record.

    A domain gives at most a tenth of its rows. Rows elsewhere that share an English or Chinese side with a chosen
    one are `shared`: no sentence is on both sides.
    """
    valid, shared = np.zeros(rows.total, bool), np.zeros(rows.total, bool)
    if not per_domain:
        return HeldOutSplit(valid, shared)
    alone = active.copy()
    for name in ("en", "zh"):
        for group in rows.key_groups(name, active):
            alone[group["row"]] &= is_alone(np.ascontiguousarray(group["key"]))
    records = np.concatenate([_chosen_records(rows, active, alone, domain, per_domain) for domain in domains])
    sentences: dict[str, list[RowHashes]] = {"en": [], "zh": []}
    for block in rows.blocks([*KEY_COLUMNS["record"], *KEY_COLUMNS["pair"]]):
        chosen = active[block.rows] & _has_key(block.keys("record"), records)
        valid[block.rows] = chosen
        for name, keys in sentences.items():
            keys.append(block.keys(name)[chosen])
    held = {name: np.concatenate(keys) for name, keys in sentences.items()}
    for block in rows.blocks(KEY_COLUMNS["pair"]):
        either = _has_key(block.keys("en"), held["en"]) | _has_key(block.keys("zh"), held["zh"])
        shared[block.rows] = active[block.rows] & ~valid[block.rows] & either
    return HeldOutSplit(valid, shared)


def _chosen_records(rows: RowStreams, active: Mask, alone: Mask, domain: str, per_domain: int) -> RowHashes:
    """The records of a domain by the hash of their English, as long as their active rows are not too many."""
    take = min(per_domain, sum(int(active[span].sum()) for span in rows.domain_spans(domain)) // 10)
    if not take:
        return np.zeros(0, np.uint64)
    candidates = _records_of_smallest_hash(rows, alone, domain, take)
    wanted, sizes = np.unique(candidates), np.zeros(len(candidates), np.int64)
    for block in rows.blocks(KEY_COLUMNS["record"], domain):
        keys = block.keys("record")[active[block.rows]]
        sizes += np.bincount(np.searchsorted(wanted, keys[_has_key(keys, wanted)]), minlength=len(sizes))
    return candidates[np.cumsum(sizes[np.searchsorted(wanted, candidates)]) <= take]


def _records_of_smallest_hash(rows: RowStreams, alone: Mask, domain: str, count: int) -> RowHashes:
    """At least `count` records, or all, by the smallest hash of the English of their rows that are `alone`."""
    limit = RECORD_ROWS * count
    while True:
        hashes, records, seen = np.zeros(0, np.uint64), np.zeros(0, np.uint64), 0
        for block in rows.blocks([*KEY_COLUMNS["record"], *KEY_COLUMNS["en"]], domain):
            inside = alone[block.rows]
            seen += int(inside.sum())
            hashes = np.concatenate([hashes, splitmix64(block.keys("en")[inside])])
            records = np.concatenate([records, block.keys("record")[inside]])
            if len(hashes) > limit:
                smallest = np.argpartition(hashes, limit)[:limit]
                hashes, records = hashes[smallest], records[smallest]
        records = records[np.argsort(hashes, kind="stable")]
        _, heads = np.unique(records, return_index=True)
        if len(heads) >= count or seen <= limit:
            return records[np.sort(heads)]
        limit *= 8


def _has_key(keys: RowHashes, wanted: RowHashes) -> Mask:
    """True for the rows that have one of the few keys `wanted`, [rows]."""
    if not len(wanted):
        return np.zeros(len(keys), bool)
    wanted = np.unique(wanted)
    found: Mask = wanted[np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)] == keys
    return found
