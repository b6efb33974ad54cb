"""Overlap with benchmarks: how much of a benchmark text a row contains, and how similar it is, on either side."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.clean.benchmarks import Benchmark
from data.clean.characters import Ints, TextColumn, decode, take_rows
from data.clean.hashing import Hashes, NgramHashes, RowHashes, casefolded, ngram_hashes
from data.clean.normalise import normalise_text
from data.jit import njit
from data.sources.io import TEXT

Floats = npt.NDArray[np.float32]
PREFILTER_MASK = (1 << 24) - 1  # bits of an n-gram hash that the filter before the index compares
MAX_TEXTS_PER_NGRAM = 40  # an n-gram of more benchmark texts identifies none of them
MIN_NGRAMS = 5  # a text with fewer useful n-grams is left to the exact match


@dataclass(frozen=True)
class BenchmarkIndex:
    """N-grams of one language's benchmark texts; row r of `texts` has `num_ngrams[r]` of them."""

    width: int
    short_width: int  # width of the n-grams of the Jaccard similarity
    texts: TextColumn  # folded
    num_ngrams: npt.NDArray[np.int64]  # [texts]
    hashes: npt.NDArray[np.uint32]  # of the distinct n-grams, sorted
    starts: npt.NDArray[np.int64]  # [hashes + 1] into `postings`
    postings: npt.NDArray[np.int32]  # texts of every n-gram
    prefilter: npt.NDArray[np.uint8]  # PREFILTER_MASK + 1 bits: 0 where no n-gram has these low bits


@dataclass(frozen=True)
class Overlap:
    """Per row: the largest share of a benchmark text's n-grams that it contains, and its similarity to that text."""

    containment: Floats
    jaccard: Floats


def build_index(texts: tuple[str, ...], chinese: bool) -> BenchmarkIndex:
    """Index benchmark texts; one without characters of the language has no useful n-grams."""
    column = pa.array(texts, TEXT)
    plain = casefolded(normalise_text(decode(column), chinese=chinese, simplify=chinese, spaces="remove"))
    width = 6 if chinese else 14
    text_ngrams = ngram_hashes(plain, width)
    pairs = np.unique((text_ngrams.hashes.astype(np.uint64) << np.uint64(32)) | text_ngrams.row_of().astype(np.uint64))
    hashes, holders = (pairs >> np.uint64(32)).astype(np.uint32), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int32)
    keys, counts = np.unique(hashes, return_counts=True)
    rare = np.repeat(counts, counts) <= MAX_TEXTS_PER_NGRAM
    holders, keys, counts = holders[rare], keys[counts <= MAX_TEXTS_PER_NGRAM], counts[counts <= MAX_TEXTS_PER_NGRAM]
    maybe = np.zeros(PREFILTER_MASK + 1, bool)
    maybe[keys & np.uint32(PREFILTER_MASK)] = True
    useful = np.bincount(holders, minlength=len(texts))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    packed = np.packbits(maybe, bitorder="little")
    return BenchmarkIndex(width, 2 if chinese else 4, plain, useful, keys, starts, holders, packed)


def build_indices(benchmarks: list[Benchmark]) -> tuple[BenchmarkIndex, BenchmarkIndex]:
    """The English and the Chinese index of all benchmarks."""
    texts = tuple(dict.fromkeys(text for b in benchmarks for text in b.texts))
    chinese = [any("\u3400" <= c <= "\u9fff" for c in text) for text in texts]
    return (
        build_index(tuple(t for t, zh in zip(texts, chinese, strict=True) if not zh), chinese=False),
        build_index(tuple(t for t, zh in zip(texts, chinese, strict=True) if zh), chinese=True),
    )


def benchmark_overlap(text: TextColumn, index: BenchmarkIndex) -> Overlap:
    """Measure the folded rows `text` against the index."""
    result = Overlap(np.zeros(text.rows, np.float32), np.zeros(text.rows, np.float32))
    if not len(index.hashes):
        return result
    row, place = _find_ngrams(ngram_hashes(text, index.width), index)
    if not len(row):
        return result
    fan = index.starts[place + 1] - index.starts[place]
    offset = np.arange(fan.sum()) - np.repeat(np.cumsum(fan) - fan, fan)
    holder = index.postings[np.repeat(index.starts[place], fan) + offset]
    pairs, counts = np.unique(
        (np.repeat(row, fan).astype(np.uint64) << np.uint64(32)) | holder.astype(np.uint64), return_counts=True
    )
    row, holder = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    share = np.where(
        index.num_ngrams[holder] >= MIN_NGRAMS, counts / np.maximum(index.num_ngrams[holder], 1), 0
    ).astype(np.float32)
    order = np.lexsort((share, row))
    last = np.append(row[order][1:] != row[order][:-1], True)
    best = order[last]
    result.containment[row[best]] = share[best]
    close = best[share[best] > 0.2]
    result.jaccard[row[close]] = jaccard_similarity(
        take_rows(text, row[close]), take_rows(index.texts, holder[close]), index.short_width
    )
    return result


def _find_ngrams(row_ngrams: NgramHashes, index: BenchmarkIndex) -> tuple[Ints, Ints]:
    """Row, and position in `index.hashes`, of every n-gram that the index has, each once a row."""
    found = np.empty(len(row_ngrams.hashes), np.uint64)
    count = _probe_index(row_ngrams.hashes, row_ngrams.starts, index.prefilter, index.hashes, found)
    row_entries = np.unique(found[:count])
    return (row_entries >> np.uint64(32)).astype(np.int64), (row_entries & np.uint64(0xFFFFFFFF)).astype(np.int64)


@njit
def _probe_index(hashes: Hashes, starts: Ints, maybe: npt.NDArray[np.uint8], keys: Hashes, hits: RowHashes) -> int:
    """Fill `hits` with (row, position in `keys`) of the n-grams that `keys` has; return how many."""
    count = 0
    for row in range(len(starts) - 1):
        for gram in hashes[starts[row] : starts[row + 1]]:
            low = gram & PREFILTER_MASK
            if maybe[low >> 3] >> (low & 7) & 1:
                slot = np.searchsorted(keys, gram)
                if slot < len(keys) and keys[slot] == gram:
                    hits[count] = (np.uint64(row) << np.uint64(32)) | np.uint64(slot)
                    count += 1
    return count


def jaccard_similarity(left: TextColumn, right: TextColumn, width: int) -> Floats:
    """Jaccard similarity of the `width`-grams of left[i] and right[i], [rows]."""
    a, b = (_row_ngram_set(ngram_hashes(text, width)) for text in (left, right))
    shared = np.intersect1d(a, b, assume_unique=True)
    size = [np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=left.rows) for keys in (a, b, shared)]
    union = size[0] + size[1] - size[2]
    return np.asarray(size[2] / np.maximum(union, 1), np.float32)


def _row_ngram_set(row_ngrams: NgramHashes) -> npt.NDArray[np.uint64]:
    return np.unique((row_ngrams.row_of().astype(np.uint64) << np.uint64(32)) | row_ngrams.hashes.astype(np.uint64))
