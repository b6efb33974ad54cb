"""What a row is made of, counted in one pass over its characters."""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt

from data.clean.alphabet import DIGIT, HAN, KANA, LATIN, MARK, OTHER, among, flags
from data.clean.codepoints import UNICODE, Ints, Mask, Points, Text
from data.clean.compiled import compiled

Count = npt.NDArray[np.int32]
QUOTES = ".,\"'“”‘’《》「」"  # marks that any sentence has
OPENING, CLOSING = "([{（【《「“", ")]}）】》」”"
SPACE = ord(" ")
KINDS = (HAN, LATIN, DIGIT, KANA, OTHER, MARK)  # the loop takes them in this order


@dataclass(frozen=True)
class Counts:
    """Counts a row, [rows] each."""

    han: Count
    latin: Count
    digits: Count
    kana: Count
    other: Count  # letters of other scripts
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


def counted(text: Text) -> Counts:
    """Count the characters of every row."""
    table = np.zeros((len(fields(Counts)), text.rows), np.int32)
    _count(text.points, text.starts, flags(), KINDS, among(QUOTES), _brackets(), table)
    return Counts(*table)


@compiled
def _count(
    points: Points,
    starts: Ints,
    flags: npt.NDArray[np.uint8],
    kinds: tuple[np.uint8, ...],
    quotes: Mask,
    brackets: npt.NDArray[np.int8],
    out: Count,
) -> None:
    open_brackets = np.zeros(len(OPENING) + 1, np.int64)
    for row in range(out.shape[1]):
        han = latin = digits = kana = other = words = marks = spaces = run = longest = 0
        open_brackets[:] = 0
        before, inside = np.int64(-1), False
        for place in range(starts[row], starts[row + 1]):
            point = np.int64(points[place])
            kind = flags[point]
            again = point == before
            before = point
            han += (kind & kinds[0]) != 0
            latin += (kind & kinds[1]) != 0
            digits += (kind & kinds[2]) != 0
            kana += (kind & kinds[3]) != 0
            other += (kind & kinds[4]) != 0
            letter = (kind & (kinds[1] | kinds[3] | kinds[4])) != 0
            words += letter and not inside
            inside = letter
            spaces += point == SPACE
            run = run + 1 if again and not kind & kinds[2] else 1
            longest = max(longest, run)
            if kind & kinds[5]:
                marks += not (again or quotes[point])
                bracket = brackets[point]
                open_brackets[abs(bracket)] += np.sign(bracket)
        visible = starts[row + 1] - starts[row] - spaces
        unbalanced = np.abs(open_brackets).sum()
        values = (han, latin, digits, kana, other, words, marks, visible, longest, unbalanced)
        for place in range(len(values)):
            out[place, row] = values[place]
