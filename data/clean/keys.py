"""Sixty-four-bit keys of normal forms, for exact duplicates, benchmarks and the held-out slice."""

from functools import cache

import numpy as np
import numpy.typing as npt

from data.clean.alphabet import DIGIT, HAN, KANA, LATIN, OTHER, flags
from data.clean.codepoints import UNICODE, Text

Keys = npt.NDArray[np.uint64]


@cache
def _folding() -> npt.NDArray[np.uint32]:
    """Lower case, one character to one."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    for point in range(0x20000):
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    return table


def folded(text: Text) -> Text:
    """Letters, digits and Han characters in lower case: what two spellings of one sentence share."""
    wanted = flags()[text.points] & (HAN | LATIN | DIGIT | KANA | OTHER)
    kept = text.keep(wanted != 0)
    return Text(_folding()[kept.points], kept.starts)


def mixed(values: Keys) -> Keys:
    """SplitMix64's finaliser: equal in, equal out, every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _powers(count: int) -> Keys:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(count, 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)


def row_keys(text: Text) -> Keys:
    """A key of each row's characters in their order, [rows]; rows of other lengths never share a prefix's key."""
    places = np.arange(len(text.points), dtype=np.int64) - np.repeat(text.starts[:-1], text.lengths)
    longest = int(text.lengths.max(initial=0))
    room = 1 << max(10, (longest + 1).bit_length())
    terms = mixed(text.points.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)) * _powers(room)[places]
    sums = np.zeros(len(terms) + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    return mixed((sums[text.starts[1:]] - sums[text.starts[:-1]]) ^ text.lengths.astype(np.uint64))
