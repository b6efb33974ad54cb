"""Numbers that disagree: the two sides write digits and share none of them."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.alphabet import among
from data.clean.codepoints import Mask, Text, encode, following, previous
from data.clean.contamination import rows_of
from data.clean.keys import Keys, mixed, row_keys

UNITS = "万亿千百十两一二三四五六七八九零纪代半点分厘米斤公里磅尺度时初月第届℃°%折"  # "1 million" is 100万, "6th" 第六
WORDS = (
    r"(?i)\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|twenty|thirty|[a-z]+ty|first|"
    r"second|third|[a-z]+th|dozen|hundreds?|thousands?|millions?|billions?|trillions?|grand|half|quarter|feet|foot|miles?|"
    r"pounds?|inches|inch|acres?|january|february|march|april|may|june|july|august|september|october|november|december)\b|"
    r"\d-\d|\d:\d|\d ?(st|nd|rd|th|s|k|m|g'?s|hundred)\b|\d['/.]\d"
)


def disagreement(en: Text, zh: Text) -> npt.NDArray[np.float32]:
    """1 where both sides write numbers in digits, share none of them, and speak of no unit that would explain it."""
    en_row, en_key = numbers(en)
    zh_row, zh_key = numbers(zh)
    both = np.zeros(en.rows, bool)
    if len(en_row) and len(zh_row):
        has_en, has_zh, shared = (np.zeros(en.rows, bool) for _ in range(3))
        has_en[en_row], has_zh[zh_row] = True, True
        shared[en_row[np.isin(mixed(en_key ^ en_row.astype(np.uint64)), mixed(zh_key ^ zh_row.astype(np.uint64)))]] = (
            True
        )
        both = has_en & has_zh & ~shared
    if both.any():
        both &= zh.total(among(UNITS)[zh.points]) == 0
        rows = np.flatnonzero(both)
        english, chinese = encode(rows_of(en, rows)), encode(rows_of(zh, rows))
        odd = ~np.asarray(pc.match_substring_regex(english, WORDS), bool)
        both[rows] = odd & _unlike(english, chinese)
    return both.astype(np.float32)


def _unlike(en: pa.Array, zh: pa.Array) -> Mask:
    """False where the digits of one side stand inside those of the other ('76 and 1976, 9-1-1 and 911); few rows."""
    digits = [pc.replace_substring_regex(side, r"\D", "").to_pylist() for side in (en, zh)]
    return np.array([a not in b and b not in a for a, b in zip(*digits, strict=True)], bool)


def numbers(text: Text) -> tuple[npt.NDArray[np.int32], Keys]:
    """Row and key of every run of ASCII digits; a comma between digits joins, zeros in front do not count."""
    points = text.points
    digit = (points >= 48) & (points <= 57)
    if not digit.any():
        return np.zeros(0, np.int32), np.zeros(0, np.uint64)
    inner = (points == 44) & previous(digit) & following(digit)
    inside = digit | inner
    first = inside & (~previous(inside) | text.firsts())
    run = np.cumsum(first)
    useful = digit & ((points != 48) | _seen(points > 48, digit, run))
    kept_run = run[useful]
    heads = np.flatnonzero(np.diff(kept_run, prepend=0) != 0)
    runs = Text(points[useful], np.append(heads, len(kept_run)).astype(np.int64))
    return text.row_of()[useful][heads], row_keys(runs) if len(heads) else np.zeros(0, np.uint64)


def _seen(mark: Mask, inside: Mask, run: npt.NDArray[np.int64]) -> Mask:
    """True where, within the same run, `mark` was true at this place or before it."""
    last = np.maximum.accumulate(np.where(mark & inside, np.arange(len(mark)), -1))
    mask: Mask = (last >= 0) & (run[last] == run)
    return mask
