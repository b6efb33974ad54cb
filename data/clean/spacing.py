"""Spaces and punctuation: single spaces, none where the language writes none, full-width punctuation in Chinese."""

from functools import cache

import numpy as np
import numpy.typing as npt

from data.clean.characters import HAN, UNICODE, CodePoints, Ints, Mask, TextColumn, char_classes, char_mask
from data.jit import njit

Kinds = npt.NDArray[np.uint8]
SPACE, DOT, FULL_STOP, COMMA, PAUSE, ZERO, NINE, A, Z = (ord(c) for c in " .。,，09az")
PERCENT, COLON, SEMICOLON, EXCLAMATION, EQUALS, QUOTE, APOSTROPHE = (ord(c) for c in "%:;!=\"'")
QUESTION, WIDE_EXCLAMATION, WIDE_QUESTION = (ord(c) for c in "?！？")
BESIDE_HAN, BESIDE_WIDE, BEFORE_STOP = 1, 2, 4
NO_SPACE_BEFORE = ",.!?;:)%]"  # English: no space before these
WIDE_PUNCTUATION = dict(zip(",;:?!", "，；：？！", strict=True))  # Chinese: after a Han character


@cache
def _kinds() -> Kinds:
    """BESIDE_HAN, BESIDE_WIDE and BEFORE_STOP bits of each code point, [UNICODE + 1]."""
    han = (char_classes() & HAN) != 0
    table = np.where(han, BESIDE_HAN | BEFORE_STOP, 0).astype(np.uint8)
    for first, last in ((0x3001, 0x3020), (0xFF01, 0xFF5F)):
        table[first:last] |= BESIDE_WIDE
    table[ord("”")] |= BEFORE_STOP
    return table


@cache
def _full_width_table() -> CodePoints:
    """ASCII punctuation -> its full-width form, every other code point -> itself, [UNICODE + 1]."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    for narrow, wide in WIDE_PUNCTUATION.items():
        table[ord(narrow)] = ord(wide)
    return table


def collapse_spaces(text: TextColumn, table: CodePoints) -> TextColumn:
    """Map characters by `table` (DELETE drops), make runs of spaces one, strip both ends."""
    points, starts = np.empty(len(text.points), np.uint32), np.zeros(text.rows + 1, np.int64)
    _settle(text.points, text.starts, table, points, starts)
    return TextColumn(points[: starts[-1]], starts)


@njit
def _settle(source: CodePoints, heads: Ints, table: CodePoints, points: CodePoints, starts: Ints) -> None:
    written, delete = 0, len(table) - 1
    for row in range(len(starts) - 1):
        for old in source[heads[row] : heads[row + 1]]:
            point = table[old]
            if point != delete and not (point == SPACE and (written == starts[row] or points[written - 1] == SPACE)):
                points[written] = point
                written += 1
        if written > starts[row] and points[written - 1] == SPACE:
            written -= 1
        starts[row + 1] = written


def strip_space_before_punctuation(text: TextColumn) -> TextColumn:
    """English: "high , wide !" becomes "high, wide!", but not before an ellipsis, ".5", ":)", "%s" and "!="."""
    points, starts = np.empty(len(text.points), np.uint32), np.zeros(text.rows + 1, np.int64)
    _unspace(text.points, text.starts, char_mask(NO_SPACE_BEFORE), points, starts)
    return TextColumn(points[: starts[-1]], starts)


@njit
def _unspace(source: CodePoints, heads: Ints, closing: Mask, points: CodePoints, starts: Ints) -> None:
    written = 0
    for row in range(len(starts) - 1):
        end = heads[row + 1]
        for i in range(heads[row], end):
            if source[i] == SPACE and i + 1 < end and closing[source[i + 1]]:
                before = source[i - 1] if i > heads[row] else np.uint32(SPACE)
                after = source[i + 2] if i + 2 < end else np.uint32(SPACE)
                if not _is_sign(before, source[i + 1], after):
                    continue
            points[written] = source[i]
            written += 1
        starts[row + 1] = written


@njit
def _is_sign(before: np.uint32, point: np.uint32, after: np.uint32) -> bool:
    """Whether a mark after a space is no punctuation: "...", ".5", ":)", "%s", "!="."""
    if point == PERCENT:
        return bool(not _is_digit(before) or A <= (after | 32) <= Z)
    if point in (COLON, SEMICOLON):
        return after not in (SPACE, QUOTE, APOSTROPHE)
    return bool(after == DOT or (point == DOT and _is_digit(after)) or (point == EXCLAMATION and after == EQUALS))


def remove_han_spaces(text: TextColumn, pauses: bool) -> TextColumn:
    """Chinese: a space between Han characters or next to full-width punctuation goes, or is a pause: a comma."""
    points, starts = np.empty(len(text.points), np.uint32), np.zeros(text.rows + 1, np.int64)
    _close_up(text.points, text.starts, _kinds(), pauses, points, starts)
    return TextColumn(points[: starts[-1]], starts)


@njit
def _close_up(source: CodePoints, heads: Ints, kinds: Kinds, pauses: bool, points: CodePoints, starts: Ints) -> None:
    written = 0
    for row in range(len(starts) - 1):
        for i in range(heads[row], heads[row + 1]):
            point = source[i]
            if point == SPACE and heads[row] < i < heads[row + 1] - 1:
                left, right = source[i - 1], source[i + 1]
                if (kinds[left] | kinds[right]) & BESIDE_WIDE or (_is_digit(left) and right == COMMA):
                    continue
                if kinds[left] & kinds[right] & BESIDE_HAN:
                    if not pauses:
                        continue
                    point = np.uint32(PAUSE)
            points[written] = point
            written += 1
        starts[row + 1] = written


def widen_punctuation(text: TextColumn) -> TextColumn:
    """Chinese: ASCII stops after a Han character become full-width; a closing "." becomes "。"."""
    points = text.points.copy()
    _punctuate(points, text.starts, _kinds(), _full_width_table())
    return TextColumn(points, text.starts)


@njit
def _punctuate(points: CodePoints, starts: Ints, kinds: Kinds, full: CodePoints) -> None:
    for row in range(len(starts) - 1):
        for i in range(starts[row], starts[row + 1]):
            last = i + 1 == starts[row + 1]
            after = np.uint32(SPACE) if last else points[i + 1]
            before = np.uint32(SPACE) if i == starts[row] else points[i - 1]
            if points[i] == PAUSE and _is_digit(before) and _is_digit(after):
                points[i] = COMMA  # a thousands separator
            elif before in (WIDE_QUESTION, WIDE_EXCLAMATION):  # 什么?!
                if points[i] in (QUESTION, EXCLAMATION):
                    points[i] = full[points[i]]
            elif kinds[before] & BEFORE_STOP:
                points[i] = full[points[i]]
                if points[i] == DOT and (last or kinds[after] & BESIDE_HAN):
                    points[i] = FULL_STOP


@njit
def _is_digit(point: np.uint32) -> bool:
    return bool(ZERO <= point <= NINE)
