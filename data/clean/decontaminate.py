"""Overlap with benchmarks: how much of a benchmark text a row holds, and how like it the row is, on either side."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.clean.benchmarks import Benchmark
from data.clean.codepoints import Ints, Text, decode, rows_of
from data.clean.hashing import Grams, Hashes, Keys, folded, grams
from data.clean.normalise import normalised
from data.jit import compiled
from data.schema import TEXT

Floats = npt.NDArray[np.float32]
FILTER = (1 << 24) - 1  # the bits of a gram that the filter before the index looks at
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
    maybe: npt.NDArray[np.uint8]  # FILTER + 1 bits: 0 where no gram has these low bits


@dataclass(frozen=True)
class Overlap:
    """Of every row: the largest share of a benchmark text's grams that it holds, and its likeness to that text."""

    held: Floats
    alike: Floats


def build_index(texts: tuple[str, ...], chinese: bool) -> Index:
    """Index benchmark texts; those without characters of the language fold to nothing useful and do no harm."""
    column = pa.array(texts, TEXT)
    plain = folded(normalised(decode(column), chinese=chinese, simplify=chinese, spaces="remove"))
    width = 6 if chinese else 14
    found = grams(plain, width)
    pairs = np.unique((found.hashes.astype(np.uint64) << np.uint64(32)) | found.row_of().astype(np.uint64))
    hashes, holders = (pairs >> np.uint64(32)).astype(np.uint32), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int32)
    keys, counts = np.unique(hashes, return_counts=True)
    rare = np.repeat(counts, counts) <= COMMON
    holders, keys, counts = holders[rare], keys[counts <= COMMON], counts[counts <= COMMON]
    maybe = np.zeros(FILTER + 1, bool)
    maybe[keys & np.uint32(FILTER)] = True
    useful = np.bincount(holders, minlength=len(texts))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    packed = np.packbits(maybe, bitorder="little")
    return Index(width, 2 if chinese else 4, plain, useful, keys, starts, holders, packed)


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
    row, place = _known(grams(text, index.width), index)
    if not len(row):
        return result
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


def _known(own: Grams, index: Index) -> tuple[Ints, Ints]:
    """Row and place in `index.keys` of every gram that the index has, each once a row."""
    found = np.empty(len(own.hashes), np.uint64)
    count = _look_up(own.hashes, own.starts, index.maybe, index.keys, found)
    once = np.unique(found[:count])
    return (once >> np.uint64(32)).astype(np.int64), (once & np.uint64(0xFFFFFFFF)).astype(np.int64)


@compiled
def _look_up(hashes: Hashes, starts: Ints, maybe: npt.NDArray[np.uint8], keys: Hashes, found: Keys) -> int:
    """Fill `found` with (row, place in `keys`) of the grams that `keys` has, return how many."""
    count = 0
    for row in range(len(starts) - 1):
        for gram in hashes[starts[row] : starts[row + 1]]:
            low = gram & FILTER
            if maybe[low >> 3] >> (low & 7) & 1:
                place = np.searchsorted(keys, gram)
                if place < len(keys) and keys[place] == gram:
                    found[count] = (np.uint64(row) << np.uint64(32)) | np.uint64(place)
                    count += 1
    return count


def likeness(left: Text, right: Text, width: int) -> Floats:
    """Jaccard similarity of the `width`-grams of left[i] and right[i], [rows]."""
    a, b = (_distinct(grams(text, width)) for text in (left, right))
    shared = np.intersect1d(a, b, assume_unique=True)
    size = [np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=left.rows) for keys in (a, b, shared)]
    union = size[0] + size[1] - size[2]
    return np.asarray(size[2] / np.maximum(union, 1), np.float32)


def _distinct(found: Grams) -> npt.NDArray[np.uint64]:
    return np.unique((found.row_of().astype(np.uint64) << np.uint64(32)) | found.hashes.astype(np.uint64))
