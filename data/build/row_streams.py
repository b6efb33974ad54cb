"""The scored rows of all sources as streams from disk, in the order in which they are judged, and what compares rows.

Groups of rows by key, medians, the rows to hold out: what is compared between rows is read anew for every comparison,
so that memory holds a few bytes a row and one group's tables.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.build.cache import ScoredSource
from data.clean.characters import Mask
from data.clean.hashing import NUM_HASHES, RowHashes, is_alone, splitmix64

GROUP_ROWS = 1 << 22  # rows whose keys are compared at a time; more are parted on disk
Records = npt.NDArray[np.void]  # structured: `row` and what is compared
KEYED = np.dtype([("row", np.int64), ("key", np.uint64)])
SIGNED = np.dtype([("row", np.int64), ("signature", np.uint8, NUM_HASHES)])
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowBlock:
    """Consecutive rows of one source; `source` is its index, `rows` their place among the rows of all sources."""

    source: int
    rows: slice
    batch: pa.RecordBatch

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of numbers, or the signatures, [rows] or [rows, NUM_HASHES]."""
        column = self.batch.column(name)
        if name != "signature":
            numbers: npt.NDArray[Any] = column.to_numpy()
            return numbers
        flat = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * NUM_HASHES :]
        return flat[: len(column) * NUM_HASHES].reshape(-1, NUM_HASHES)

    def keys(self, name: str) -> RowHashes:
        """`en`, `zh`: of that side; `pair`: of both; `record`: of source, file and line, which parts share; [rows]."""
        if name == "record":
            file, line = self.column("file").astype(np.uint64), self.column("line").astype(np.uint64)
            return splitmix64((line | (file << np.uint64(40))) ^ (np.uint64(self.source) << np.uint64(52)))
        if name == "pair":
            return splitmix64(self.keys("en") ^ splitmix64(self.keys("zh") + np.uint64(1)))
        return self.column(f"{name}_key").astype(np.uint64, copy=False)

    def records(self, dtype: np.dtype[np.void], chosen: Mask, values: npt.NDArray[Any]) -> Records:
        """The chosen rows with their `values`, as KEYED or SIGNED."""
        rows = np.flatnonzero(chosen)
        records = np.empty(len(rows), dtype)
        records["row"], records[(dtype.names or ("",))[-1]] = rows + self.rows.start, values[rows]
        return records


KEY_COLUMNS = {"en": ["en_key"], "zh": ["zh_key"], "pair": ["en_key", "zh_key"], "record": ["file", "line"]}


@dataclass(frozen=True)
class RowStreams:
    """The rows of all sources; `spans[i]` are those of source i, `scratch` is a folder for groups of many rows."""

    sources: list[ScoredSource]
    spans: tuple[slice, ...]
    scratch: Path

    @property
    def total(self) -> int:
        """All rows."""
        return sum(source.num_rows for source in self.sources)

    def domain_spans(self, domain: str) -> list[slice]:
        """The spans of the sources of a domain."""
        return [span for span, source in zip(self.spans, self.sources, strict=True) if source.source.domain == domain]

    def blocks(self, columns: list[str], domain: str = "") -> Iterator[RowBlock]:
        """Some columns of the rows of a domain, or of all, in the order in which rows are judged."""
        for number in sorted(range(len(self.spans)), key=lambda n: self.spans[n].start):
            row, source = self.spans[number].start, self.sources[number]
            for batch in source.iter_columns(columns) if domain in ("", source.source.domain) else ():
                yield RowBlock(number, slice(row, row + batch.num_rows), batch)
                row += batch.num_rows

    @staticmethod
    def fits(count: int) -> bool:
        """Whether so many records are compared at once, as one group."""
        return count < GROUP_ROWS

    def key_groups(self, name: str, active: Mask) -> Iterator[Records]:
        """The active rows in groups that share no key of this name, as KEYED."""
        chunks = (b.records(KEYED, active[b.rows], b.keys(name)) for b in self.blocks(KEY_COLUMNS[name]))
        return self.groups(chunks, lambda records: records["key"], int(active.sum()))

    def groups(self, chunks: Iterable[Records], keys: Callable[[Records], RowHashes], count: int) -> Iterator[Records]:
        """About `count` records in groups that share no key, in the order in which they come; many lie on disk."""
        bits = (count // GROUP_ROWS).bit_length()
        if self.fits(count):
            yield np.concatenate(list(chunks))
            return
        folder = self.scratch / f".groups.partial-{os.getpid()}"  # `remove_abandoned` finds it
        folder.mkdir(parents=True)
        files = [(folder / str(number)).open("wb") for number in range(1 << bits)]
        for chunk in chunks:
            dtype = chunk.dtype
            group = (keys(chunk) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)
            order = np.argsort(group.astype(np.uint16), kind="stable")
            edges = np.searchsorted(group[order], np.arange(len(files) + 1))
            for number, file in enumerate(files):
                file.write(chunk[order[edges[number] : edges[number + 1]]].tobytes())
        for file in files:
            file.close()
        for file in files:
            yield np.fromfile(file.name, dtype)
            Path(file.name).unlink()
        folder.rmdir()


def exact_median(values: Callable[[], Iterator[Floats]]) -> np.float32:
    """The median of a stream that can be read again, bit for bit that of `np.median`; at least one value."""
    counts = sum(np.bincount(_ordered(block) >> 16, minlength=1 << 16) for block in values())
    ends = np.cumsum(counts)

    def ranked(rank: int) -> np.uint32:
        high = int(np.searchsorted(ends, rank, side="right"))
        inside = (ordered[ordered >> 16 == high] & 0xFFFF for ordered in map(_ordered, values()))
        lows = np.cumsum(sum(np.bincount(low, minlength=1 << 16) for low in inside))
        return np.uint32(high << 16 | int(np.searchsorted(lows, rank - (ends[high - 1] if high else 0), side="right")))

    middle = np.array([ranked((int(ends[-1]) - 1) // 2), ranked(int(ends[-1]) // 2)], np.uint32)
    return np.float32(
        np.median(np.where(middle >> 31, middle ^ 0x80000000, ~middle).astype(np.uint32).view(np.float32))
    )


def _ordered(values: Floats) -> npt.NDArray[np.uint32]:
    """Unsigned integers in the order of the floats."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | 0x80000000).astype(np.uint32)


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
