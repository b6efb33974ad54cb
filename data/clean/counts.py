"""What a row is made of, counted in one pass over its characters."""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt

from data.clean.alphabet import DIGIT, HAN, KANA, LATIN, MARK, OTHER, among, flags
from data.clean.codepoints import UNICODE, Ints, Mask, Points, Text
from data.compiled import compiled

Count = npt.NDArray[np.int32]
QUOTES = ".,\"'“”‘’《》「」"  # marks that any sentence has
OPENING, CLOSING = "([{（【《「“", ")]}）】》」”"
SPACE = ord(" ")
KINDS = (HAN, LATIN, KANA, OTHER, DIGIT, MARK)  # in the order of the first fields of Counts
LATIN_PLACE, OTHER_PLACE, DIGIT_PLACE, MARK_PLACE = 1, 3, 4, 5


@dataclass(frozen=True)
class Counts:
    """Counts a row, [rows] each."""

    han: Count
    latin: Count
    kana: Count
    other: Count  # letters of other scripts
    digits: Count
    words: Count  # runs of letters that are not Han
    marks: Count  # punctuation and symbols but QUOTES, a run of one and the same counted once
    visible: Count  # characters but spaces
    run: Count  # the longest run of one character, digits apart
    unbalanced: Count  # brackets that open without closing or the other way round


@cache
def _brackets() -> npt.NDArray[np.int8]:
    """n for the opening and -n for the closing sign of pair n, from 1; 0 elsewhere, [UNICODE + 1]."""
    table = np.zeros(UNICODE + 1, np.int8)
    for number, (left, right) in enumerate(zip(OPENING, CLOSING, strict=True), 1):
        table[ord(left)], table[ord(right)] = number, -number
    return table


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """Place of each code point's flag in KINDS, or len(KINDS), [UNICODE + 1]."""
    table = np.full(UNICODE + 1, len(KINDS), np.uint8)
    for place, kind in enumerate(KINDS):
        table[flags() == kind] = place
    return table


def counted(text: Text) -> Counts:
    """Count the characters of every row."""
    table = np.zeros((len(fields(Counts)), text.rows), np.int32)
    _count(text.points, text.starts, _classes(), among(QUOTES), _brackets(), table)
    return Counts(*table)


@compiled
def _count(
    points: Points,
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
        for place in range(starts[row], starts[row + 1]):
            point = np.int64(points[place])
            kind = classes[point]
            again = point == before
            before = point
            tally[kind] += 1
            letter = LATIN_PLACE <= kind <= OTHER_PLACE
            words += letter and not inside
            inside = letter
            run = run + 1 if again and kind != DIGIT_PLACE else 1
            longest = max(longest, run)
            if kind == MARK_PLACE:
                marks += not (again or quotes[point])
                bracket = brackets[point]
                opened[abs(bracket)] += np.sign(bracket)
            else:
                spaces += point == SPACE
        out[: DIGIT_PLACE + 1, row] = tally[: DIGIT_PLACE + 1]
        out[5, row] = words
        out[6, row] = marks
        out[7, row] = starts[row + 1] - starts[row] - spaces
        out[8, row] = longest
        out[9, row] = np.abs(opened).sum()
