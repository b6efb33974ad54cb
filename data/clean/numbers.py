"""Numbers that disagree: the two sides write digits and share none of them."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.alphabet import among
from data.clean.codepoints import Ints, Mask, Points, Text, encode, holding, rows_of
from data.clean.keys import Keys
from data.compiled import compiled

UNITS = "万亿千百十两一二三四五六七八九零纪代半点分厘米斤公里磅尺度时初月第届℃°%折"  # "1 million" is 100万, "6th" 第六
WORDS = (
    r"(?i)\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|twenty|thirty|[a-z]+ty|first|"
    r"second|third|[a-z]+th|dozen|hundreds?|thousands?|millions?|billions?|trillions?|grand|half|quarter|feet|foot|miles?|"
    r"pounds?|inches|inch|acres?|january|february|march|april|may|june|july|august|september|october|november|december)\b|"
    r"\d-\d|\d:\d|\d ?(st|nd|rd|th|s|k|m|g'?s|hundred)\b|\d['/.]\d"
)
MOST = 64  # numbers of a side that are compared
COMMA, ZERO, NINE = ord(","), ord("0"), ord("9")


def disagreement(en: Text, zh: Text) -> npt.NDArray[np.float32]:
    """1 where both sides write numbers in digits, share none of them, and speak of no unit that would explain it."""
    apart = np.zeros(en.rows, bool)
    _apart(en.points, en.starts, zh.points, zh.starts, apart)
    if apart.any():
        apart &= ~holding(zh, among(UNITS))
        rows = np.flatnonzero(apart)
        english, chinese = encode(rows_of(en, rows)), encode(rows_of(zh, rows))
        odd = ~np.asarray(pc.match_substring_regex(english, WORDS), bool)
        apart[rows] = odd & _unlike(english, chinese)
    return apart.astype(np.float32)


def _unlike(en: pa.Array, zh: pa.Array) -> Mask:
    """False where the digits of one side stand inside those of the other ('76 and 1976, 9-1-1 and 911); few rows."""
    digits = [pc.replace_substring_regex(side, r"\D", "").to_pylist() for side in (en, zh)]
    return np.array([a not in b and b not in a for a, b in zip(*digits, strict=True)], bool)


@compiled
def _apart(en: Points, en_starts: Ints, zh: Points, zh_starts: Ints, apart: Mask) -> None:
    """True where both sides have numbers and none of them in common."""
    left, right = np.empty(MOST, np.uint64), np.empty(MOST, np.uint64)
    for row in range(len(apart)):
        ours = numbers(en[en_starts[row] : en_starts[row + 1]], left)
        theirs = numbers(zh[zh_starts[row] : zh_starts[row + 1]], right) if ours else 0
        shared = False
        for one in range(ours):
            for other in range(theirs):
                shared |= left[one] == right[other]
        apart[row] = theirs > 0 and not shared


@compiled
def numbers(points: Points, keys: Keys) -> int:
    """Fill `keys` with a key of every run of ASCII digits, return how many; commas join, zeros in front are nothing."""
    count, key = 0, np.uint64(0)
    for place in range(len(points) + 1):
        point = points[place] if place < len(points) else np.uint32(0)
        if ZERO <= point <= NINE:
            if point != ZERO or key != 0:
                key = (key + np.uint64(point)) * np.uint64(0x9E3779B97F4A7C15)
        elif key != 0 and not (point == COMMA and place + 1 < len(points) and ZERO <= points[place + 1] <= NINE):
            if count < len(keys):
                keys[count] = key
                count += 1
            key = np.uint64(0)
    return count
