"""Overlap with benchmarks: how much of a benchmark text a row holds, and how like it the row is, on either side."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.clean.benchmarks import Benchmark
from data.clean.codepoints import Text
from data.clean.grams import Grams, grams
from data.clean.keys import folded
from data.clean.normalise import normalised
from data.pair import TEXT

Floats = npt.NDArray[np.float32]
FILTER_BITS = 24
COMMON = 40  # a gram of more benchmark texts than this says nothing about one of them
FEWEST = 5  # a text with fewer useful grams is left to the exact match


@dataclass(frozen=True)
class Index:
    """Grams of one language's benchmark texts; row r of `texts` has `useful[r]` of them."""

    width: int
    short: int  # width of the grams that "alike" compares
    texts: Text  # folded
    useful: npt.NDArray[np.int64]  # [texts]
    keys: npt.NDArray[np.uint32]  # sorted distinct grams
    starts: npt.NDArray[np.int64]  # [keys + 1] into `holders`
    holders: npt.NDArray[np.int32]  # texts of every gram
    maybe: npt.NDArray[np.bool_]  # [2 ** FILTER_BITS]: false where no gram has these low bits


@dataclass(frozen=True)
class Yardstick:
    """What rows are measured against besides themselves."""

    indices: tuple[Index, Index]  # English and Chinese benchmark texts
    sha256: str  # of the benchmark files
    near: bool = True  # whether signatures for near duplicates are wanted


@dataclass(frozen=True)
class Overlap:
    """Of every row: the largest share of a benchmark text's grams that it holds, and its likeness to that text."""

    held: Floats
    alike: Floats


def build_index(texts: tuple[str, ...], chinese: bool) -> Index:
    """Index benchmark texts; those without characters of the language fold to nothing useful and do no harm."""
    column = pa.array(texts, TEXT)
    plain = folded(normalised(column, chinese=chinese, simplify=chinese, spaces="remove"))
    width = 6 if chinese else 14
    found = grams(plain, width)
    pairs = np.unique((found.hashes.astype(np.uint64) << np.uint64(32)) | found.row_of().astype(np.uint64))
    hashes, holders = (pairs >> np.uint64(32)).astype(np.uint32), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int32)
    keys, counts = np.unique(hashes, return_counts=True)
    rare = np.repeat(counts, counts) <= COMMON
    holders, keys, counts = holders[rare], keys[counts <= COMMON], counts[counts <= COMMON]
    maybe = np.zeros(1 << FILTER_BITS, bool)
    maybe[keys & np.uint32((1 << FILTER_BITS) - 1)] = True
    useful = np.bincount(holders, minlength=len(texts))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Index(width, 2 if chinese else 4, plain, useful, keys, starts, holders, maybe)


def build_indices(benchmarks: list[Benchmark]) -> tuple[Index, Index]:
    """The English and the Chinese index of all benchmarks."""
    texts = tuple(dict.fromkeys(text for b in benchmarks for text in b.texts))
    chinese = [any("\u3400" <= c <= "\u9fff" for c in text) for text in texts]
    return (
        build_index(tuple(t for t, zh in zip(texts, chinese, strict=True) if not zh), chinese=False),
        build_index(tuple(t for t, zh in zip(texts, chinese, strict=True) if zh), chinese=True),
    )


def overlap(text: Text, index: Index) -> Overlap:
    """Measure the folded rows `text` against the index."""
    result = Overlap(np.zeros(text.rows, np.float32), np.zeros(text.rows, np.float32))
    if not len(index.keys):
        return result
    own = grams(text, index.width)
    hit = np.flatnonzero(index.maybe[own.hashes & np.uint32((1 << FILTER_BITS) - 1)])
    place = np.searchsorted(index.keys, own.hashes[hit])
    place[place == len(index.keys)] = 0
    exact = index.keys[place] == own.hashes[hit]
    hit, place = hit[exact], place[exact]
    if not len(hit):
        return result
    row = np.searchsorted(own.starts, hit, side="right") - 1
    once = np.unique((row.astype(np.uint64) << np.uint64(32)) | place.astype(np.uint64))
    row, place = (once >> np.uint64(32)).astype(np.int64), (once & np.uint64(0xFFFFFFFF)).astype(np.int64)
    fan = index.starts[place + 1] - index.starts[place]
    offset = np.arange(fan.sum()) - np.repeat(np.cumsum(fan) - fan, fan)
    holder = index.holders[np.repeat(index.starts[place], fan) + offset]
    pairs, counts = np.unique(
        (np.repeat(row, fan).astype(np.uint64) << np.uint64(32)) | holder.astype(np.uint64), return_counts=True
    )
    row, holder = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    share = np.where(index.useful[holder] >= FEWEST, counts / np.maximum(index.useful[holder], 1), 0).astype(np.float32)
    order = np.lexsort((share, row))
    last = np.append(row[order][1:] != row[order][:-1], True)
    best = order[last]
    result.held[row[best]] = share[best]
    close = best[share[best] > 0.2]
    result.alike[row[close]] = likeness(rows_of(text, row[close]), rows_of(index.texts, holder[close]), index.short)
    return result


def rows_of(text: Text, rows: npt.NDArray[np.int64]) -> Text:
    """Some rows of a text column, in the order given."""
    lengths = text.lengths[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    inside = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    return Text(text.points[np.repeat(text.starts[:-1][rows], lengths) + inside], starts)


def likeness(left: Text, right: Text, width: int) -> Floats:
    """Jaccard similarity of the `width`-grams of left[i] and right[i], [rows]."""
    a, b = (_distinct(grams(text, width)) for text in (left, right))
    shared = np.intersect1d(a, b, assume_unique=True)
    size = [np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=left.rows) for keys in (a, b, shared)]
    union = size[0] + size[1] - size[2]
    return np.asarray(size[2] / np.maximum(union, 1), np.float32)


def _distinct(found: Grams) -> npt.NDArray[np.uint64]:
    return np.unique((found.row_of().astype(np.uint64) << np.uint64(32)) | found.hashes.astype(np.uint64))
