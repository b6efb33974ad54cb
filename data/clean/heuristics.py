"""Heuristics of quality: character counts, sentence endings that differ, numbers that disagree, repetition."""

import unicodedata
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.characters import (
    DIGIT,
    HAN,
    KANA,
    LATIN,
    OTHER,
    PUNCTUATION,
    UNICODE,
    CodePoints,
    Ints,
    Mask,
    TextColumn,
    char_classes,
    char_mask,
    encode,
    rows_with,
    take_rows,
)
from data.clean.hashing import RowHashes
from data.jit import njit

Count = npt.NDArray[np.int32]
COMMON_PUNCTUATION = ".,\"'“”‘’《》「」"  # marks that any sentence has
OPENING, CLOSING = "([{（【《「“", ")]}）】》」”"
SPACE = ord(" ")
CLASS_ORDER = (HAN, LATIN, KANA, OTHER, DIGIT, PUNCTUATION)  # in the order of the first fields of CharCounts
LATIN_INDEX, OTHER_INDEX, DIGIT_INDEX, PUNCTUATION_INDEX = 1, 3, 4, 5
WORDS_ROW, PUNCTUATION_ROW, VISIBLE_ROW, RUN_ROW, BRACKETS_ROW = range(5, 10)  # the other fields of CharCounts


@dataclass(frozen=True)
class CharCounts:
    """Counts a row, [rows] each."""

    han: Count
    latin: Count
    kana: Count
    other: Count  # letters of other scripts
    digits: Count
    words: Count  # runs of letters that are not Han
    punctuation: Count  # punctuation and symbols but COMMON_PUNCTUATION, a run of the same one counted once
    visible: Count  # characters but spaces
    char_run: Count  # the longest run of one character, digits apart
    unbalanced_brackets: Count  # brackets that open without closing or the other way round


@cache
def _brackets() -> npt.NDArray[np.int8]:
    """n for the opening and -n for the closing bracket of pair n, from 1; 0 elsewhere, [UNICODE + 1]."""
    table = np.zeros(UNICODE + 1, np.int8)
    for left, right in zip(OPENING, CLOSING, strict=True):
        number = OPENING.index(unicodedata.normalize("NFKC", left).replace("【", "[")) + 1  # （ closes with ) too
        table[ord(left)], table[ord(right)] = number, -number
    return table


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """Index of each code point's class in CLASS_ORDER, or its length, [UNICODE + 1]."""
    table = np.full(UNICODE + 1, len(CLASS_ORDER), np.uint8)
    for place, kind in enumerate(CLASS_ORDER):
        table[char_classes() == kind] = place
    return table


def count_characters(text: TextColumn) -> CharCounts:
    """Count the characters of every row."""
    table = np.zeros((len(fields(CharCounts)), text.rows), np.int32)
    _count(text.points, text.starts, _classes(), char_mask(COMMON_PUNCTUATION), _brackets(), table)
    return CharCounts(*table)


@njit
def _count(
    points: CodePoints,
    starts: Ints,
    classes: npt.NDArray[np.uint8],
    quotes: Mask,
    brackets: npt.NDArray[np.int8],
    out: Count,
) -> None:
    tally, opened = np.zeros(7, np.int32), np.zeros(len(OPENING) + 1, np.int32)
    for row in range(out.shape[1]):
        tally[:], opened[:] = 0, 0
        words = marks = spaces = run = longest = 0
        before, inside = np.int64(-1), False
        for i in range(starts[row], starts[row + 1]):
            point = np.int64(points[i])
            kind = classes[point]
            again = point == before
            before = point
            tally[kind] += 1
            letter = LATIN_INDEX <= kind <= OTHER_INDEX
            words += letter and not inside
            inside = letter
            run = run + 1 if again and kind != DIGIT_INDEX else 1
            longest = max(longest, run)
            if kind == PUNCTUATION_INDEX:
                marks += not (again or quotes[point])
                bracket = brackets[point]
                opened[abs(bracket)] += np.sign(bracket)
            else:
                spaces += point == SPACE
        out[: DIGIT_INDEX + 1, row] = tally[: DIGIT_INDEX + 1]
        out[WORDS_ROW, row] = words
        out[PUNCTUATION_ROW, row] = marks
        out[VISIBLE_ROW, row] = starts[row + 1] - starts[row] - spaces
        out[RUN_ROW, row] = longest
        out[BRACKETS_ROW, row] = np.abs(opened).sum()


CLOSING_AFTER_STOP = "\"'”’)）」』》】]"  # may stand after the stop
STOPS, QUESTIONS = ".!。！…", "?？"
NO_STOP, STATEMENT, QUESTION = 0, 1, 2


def ending_mismatch(en: TextColumn, zh: TextColumn) -> npt.NDArray[np.float32]:
    """1 where only one side is a question, 0.5 where only one side ends in a stop, else 0, [rows]."""
    left, right = _sentence_endings(en), _sentence_endings(zh)
    question_mismatch = (left == QUESTION) != (right == QUESTION)
    return np.where(question_mismatch, 1, np.where(left != right, 0.5, 0)).astype(np.float32)


def _sentence_endings(text: TextColumn) -> npt.NDArray[np.int8]:
    kinds = np.zeros(text.rows, np.int8)
    _classify_endings(
        text.points, text.starts, char_mask(CLOSING_AFTER_STOP), char_mask(STOPS), char_mask(QUESTIONS), kinds
    )
    return kinds


@njit
def _classify_endings(
    points: CodePoints, starts: Ints, closing: Mask, stops: Mask, questions: Mask, kinds: npt.NDArray[np.int8]
) -> None:
    for row in range(len(kinds)):
        i = starts[row + 1] - 1
        while i >= starts[row] and closing[points[i]]:
            i -= 1
        if i >= starts[row]:
            kinds[row] = QUESTION if questions[points[i]] else STATEMENT if stops[points[i]] else NO_STOP


NUMBER_UNITS = (
    "万亿千百十两一二三四五六七八九零纪代半点分厘米斤公里磅尺度时初月第届℃°%折"  # "1 million" is 100万, "6th" 第六
)
NUMBER_WORDS = (
    r"(?i)\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|twenty|thirty|[a-z]+ty|first|"
    r"second|third|[a-z]+th|dozen|hundreds?|thousands?|millions?|billions?|trillions?|grand|half|quarter|feet|foot|miles?|"
    r"pounds?|inches|inch|acres?|january|february|march|april|may|june|july|august|september|october|november|december)\b|"
    r"\d-\d|\d:\d|\d ?(st|nd|rd|th|s|k|m|g'?s|hundred)\b|\d['/.]\d"
)
MAX_NUMBERS = 64  # numbers of a side that are compared
COMMA, ZERO, NINE = ord(","), ord("0"), ord("9")


def numbers_disagree(en: TextColumn, zh: TextColumn) -> npt.NDArray[np.float32]:
    """1 where both sides have numbers in digits, share none, and no unit or number word explains it, [rows]."""
    mismatch = np.zeros(en.rows, bool)
    _no_common_number(en.points, en.starts, zh.points, zh.starts, mismatch)
    if mismatch.any():
        mismatch &= ~rows_with(zh, char_mask(NUMBER_UNITS))
        rows = np.flatnonzero(mismatch)
        english, chinese = encode(take_rows(en, rows)), encode(take_rows(zh, rows))
        unexplained = ~np.asarray(pc.match_substring_regex(english, NUMBER_WORDS), bool)
        mismatch[rows] = unexplained & _digits_differ(english, chinese)
    return mismatch.astype(np.float32)


def _digits_differ(en: pa.Array, zh: pa.Array) -> Mask:
    """False where the digits of one side are part of those of the other ('76 and 1976, 9-1-1 and 911); few rows."""
    digits = [pc.replace_substring_regex(side, r"\D", "").to_pylist() for side in (en, zh)]
    return np.array([a not in b and b not in a for a, b in zip(*digits, strict=True)], bool)


@njit
def _no_common_number(en: CodePoints, en_starts: Ints, zh: CodePoints, zh_starts: Ints, mismatch: Mask) -> None:
    """True where both sides have numbers and none of them in common."""
    left, right = np.empty(MAX_NUMBERS, np.uint64), np.empty(MAX_NUMBERS, np.uint64)
    for row in range(len(mismatch)):
        num_en = number_hashes(en[en_starts[row] : en_starts[row + 1]], left)
        num_zh = number_hashes(zh[zh_starts[row] : zh_starts[row + 1]], right) if num_en else 0
        shared = False
        for one in range(num_en):
            for other in range(num_zh):
                shared |= left[one] == right[other]
        mismatch[row] = num_zh > 0 and not shared


@njit
def number_hashes(points: CodePoints, keys: RowHashes) -> int:
    """Fill `keys` with a hash of every run of digits, return how many; commas join, leading zeros do not count."""
    count, key = 0, np.uint64(0)
    for i in range(len(points) + 1):
        point = points[i] if i < len(points) else np.uint32(0)
        if ZERO <= point <= NINE:
            if point != ZERO or key != 0:
                key = (key + np.uint64(point)) * np.uint64(0x9E3779B97F4A7C15)
        elif key != 0 and not (point == COMMA and i + 1 < len(points) and ZERO <= points[i + 1] <= NINE):
            if count < len(keys):
                keys[count] = key
                count += 1
            key = np.uint64(0)
    return count


MAX_PERIOD, MIN_LENGTH = 8, 24  # characters


def periodicity(text: TextColumn) -> npt.NDArray[np.float32]:
    """Largest share, over periods of 1 to 8, of characters that equal the one a period before; rows under 24 are 0."""
    best = np.zeros(text.rows, np.float32)
    _periodic(text.points, text.starts, best)
    return best


@njit
def _periodic(points: CodePoints, starts: Ints, best: npt.NDArray[np.float32]) -> None:
    for row in range(len(best)):
        part = points[starts[row] : starts[row + 1]]
        if len(part) < MIN_LENGTH:
            continue
        for period in range(1, MAX_PERIOD + 1):
            same = 0
            for i in range(len(part) - period):
                same += part[i] == part[i + period]
            best[row] = max(best[row], np.float32(same / (len(part) - period)))
