"""Which language a side is really in: function words for Latin script, telling characters for Chinese."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.clean.alphabet import HAN, LATIN, flags
from data.clean.codepoints import UNICODE, Ints, Mask, Text, decode, following, previous
from data.clean.keys import Keys, folded, row_keys
from data.pair import TEXT

ENGLISH = """
the a an of to in is are was were be been and or with on at by for from that this these those it its he she his her
they their you your we our i my me not no do does did have has had as but if so what who where when how there here
can could will would should may might all some any more than then out up down over into near through man woman one
two people don't it's i'm that's you're we're let's
"""
FOREIGN = """
le les des du une et est dans qui que pour pas sur avec vous nous ce cette sont mais ou der die das und ist ein eine
nicht mit den dem zu auf für sich ich wir sie auch von el los las en es por con para lo del como pero il gli che di
è non una per sono della nel os uma não com het een niet zijn dat voor maar ik och att det som är på inte jag og
ikke til av nie się jest że ve bir bu için untuk itu tidak dengan adalah là của và có
"""
CANTONESE = "嘅咗喺佢啲嗰嚟冇哋噉喎畀嘢攞揾乜咁瞓嗌嬲攰"  # and 唔 before another Han character: alone it is "hmm"


@cache
def _words(english: bool) -> Keys:
    ours = set(ENGLISH.split())
    words = sorted(ours if english else set(FOREIGN.split()) - ours)
    return np.unique(row_keys(folded(decode(pa.array(words, TEXT)))))


@cache
def _cantonese() -> Mask:
    mask = np.zeros(UNICODE + 1, bool)
    mask[[ord(c) for c in CANTONESE]] = True
    return mask


def foreignness(en: Text) -> npt.NDArray[np.float32]:
    """Share of foreign function words minus share of English ones, -1 to 1.

    Rows under four words, or with one foreign word alone (it may be a name), are 0.
    """
    latin = (flags()[en.points] & LATIN) != 0
    latin |= en.points == ord("'")
    first = latin & (~previous(latin) | en.firsts())
    heads = np.cumsum(latin) - 1
    words = folded(Text(en.points[latin], np.append(heads[first], int(latin.sum())).astype(np.int64)))
    keys = row_keys(words)
    count = en.total(first)
    row = np.repeat(np.arange(en.rows), count)
    foreign = np.bincount(row[_known(keys, False)], minlength=en.rows)
    english = np.bincount(row[_known(keys, True)], minlength=en.rows)
    result = ((foreign - english) / np.maximum(count, 1)).astype(np.float32)
    result[(count < 4) | (foreign < 2)] = 0
    return result


@cache
def _maybe(english: bool) -> Mask:
    """False where no known word's key has these low 16 bits: most words are settled by one look."""
    mask = np.zeros(1 << 16, bool)
    mask[_words(english) & np.uint64(0xFFFF)] = True
    return mask


def _known(keys: Keys, english: bool) -> Ints:
    """Places in `keys` of the function words of English, or of the other languages."""
    words, likely = _words(english), np.flatnonzero(_maybe(english)[keys & np.uint64(0xFFFF)])
    at = np.minimum(np.searchsorted(words, keys[likely]), len(words) - 1)
    found: Ints = likely[words[at] == keys[likely]]
    return found


def cantonese(zh: Text) -> npt.NDArray[np.float32]:
    """Characters that written Cantonese has and Mandarin has not, a row."""
    not_hmm = (zh.points == ord("唔")) & ~zh.lasts() & ((following(flags()[zh.points]) & HAN) != 0)
    return zh.total(_cantonese()[zh.points] | not_hmm).astype(np.float32)
