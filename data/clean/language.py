"""The language of a side: function words for Latin script, characters of their own for Cantonese."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.clean.characters import HAN, LATIN, CodePoints, Ints, Mask, TextColumn, char_classes, char_mask, decode
from data.clean.hashing import RowHashes, casefold_table, casefolded
from data.jit import njit
from data.sources.io import TEXT

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
CANTONESE_M, APOSTROPHE, SPACE, EMPTY_KEY = ord("唔"), ord("'"), ord(" "), np.uint64(0)


TABLE_SIZE = 1 << 12  # of the hash table of function words, most of it empty


@dataclass(frozen=True)
class Lexicon:
    """Function words by the hash of their letters: `keys`, `foreign` [TABLE_SIZE]; key 0 is an empty slot."""

    keys: RowHashes
    foreign: Mask


@cache
def lexicon() -> Lexicon:
    """The function words of English and of the other languages; English wins where both have a word."""
    function_words = dict.fromkeys(FOREIGN.split(), True) | dict.fromkeys(ENGLISH.split(), False)
    words = casefolded(decode(pa.array(list(function_words), TEXT)))
    is_foreign = np.array(list(function_words.values()))
    table = Lexicon(np.zeros(TABLE_SIZE, np.uint64), np.zeros(TABLE_SIZE, bool))
    _insert_words(words.points, words.starts, is_foreign, table.keys, table.foreign)
    return table


@njit
def _insert_words(points: CodePoints, starts: Ints, is_foreign: Mask, keys: RowHashes, foreign: Mask) -> None:
    for word in range(len(is_foreign)):
        key = EMPTY_KEY
        for point in points[starts[word] : starts[word + 1]]:
            key = _hash_step(key, point)
        slot = _slot(keys, key)
        keys[slot], foreign[slot] = key, is_foreign[word]


@njit
def _hash_step(key: np.uint64, point: np.uint32) -> np.uint64:
    return (key ^ np.uint64(point)) * np.uint64(0x100000001B3) + np.uint64(1)


@njit
def _slot(keys: RowHashes, key: np.uint64) -> int:
    """The slot where `key` is, or would be inserted, by open addressing."""
    i = np.int64((key ^ (key >> np.uint64(20))) & np.uint64(len(keys) - 1))
    while keys[i] != 0 and keys[i] != key:
        i = (i + 1) % len(keys)
    return int(i)


def foreign_word_share(en: TextColumn) -> npt.NDArray[np.float32]:
    """Share of foreign function words minus share of English ones, -1 to 1.

    Rows under four words, or with one foreign word alone (it may be a name), are 0.
    """
    result, known = np.zeros(en.rows, np.float32), lexicon()
    _foreignness(en.points, en.starts, char_classes() & LATIN, casefold_table(), known.keys, known.foreign, result)
    return result


@njit
def _foreignness(
    points: CodePoints,
    starts: Ints,
    latin: npt.NDArray[np.uint8],
    fold: CodePoints,
    keys: RowHashes,
    foreign: Mask,
    result: npt.NDArray[np.float32],
) -> None:
    for row in range(len(result)):
        words = foreign_words = english_words = 0
        key, inside = EMPTY_KEY, False
        for i in range(starts[row], starts[row + 1] + 1):
            point = points[i] if i < starts[row + 1] else np.uint32(SPACE)
            if latin[point] or point == APOSTROPHE:
                words += not inside
                inside = True
                if point != APOSTROPHE:
                    key = _hash_step(key, fold[point])
            elif inside:
                slot = _slot(keys, key)
                if key != EMPTY_KEY and keys[slot] == key:
                    foreign_words += foreign[slot]
                    english_words += not foreign[slot]
                key, inside = EMPTY_KEY, False
        if words >= 4 and foreign_words >= 2:
            result[row] = (foreign_words - english_words) / words


def cantonese(zh: TextColumn) -> npt.NDArray[np.float32]:
    """Number of characters that only written Cantonese has, [rows]."""
    result = np.zeros(zh.rows, np.float32)
    _count_cantonese(zh.points, zh.starts, char_mask(CANTONESE), char_classes() & HAN, result)
    return result


@njit
def _count_cantonese(
    points: CodePoints, starts: Ints, cantonese_chars: Mask, han: npt.NDArray[np.uint8], result: npt.NDArray[np.float32]
) -> None:
    for row in range(len(result)):
        for i in range(starts[row], starts[row + 1]):
            before_han = i + 1 < starts[row + 1] and han[points[i + 1]] != 0
            result[row] += cantonese_chars[points[i]] or (points[i] == CANTONESE_M and before_han)
