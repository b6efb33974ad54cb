"""Text columns as arrays of code points, their character classes, and the tables of normalisation.

Cleaning is compiled loops over code points, and no Python a row.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import opencc
import pyarrow as pa

from data.jit import njit
from data.sources.io import TEXT

CodePoints = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
UNICODE = 0x110000  # one more than the last code point
HAN, LATIN, DIGIT, WHITESPACE, KANA, OTHER, PUNCTUATION = (np.uint8(1 << bit) for bit in range(7))
DELETE = UNICODE  # what a normalisation table maps a dropped character to: its own last entry

HAN_RANGES = ((0x3007, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x32400))
LATIN_RANGES = ((0, 0x250), (0x1E00, 0x1F00), (0xFF21, 0xFF5B))
KANA_RANGES = ((0x3041, 0x30FB), (0x30FC, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFF9E))
INVISIBLE = (
    0xAD, 0x61C, 0x115F, 0x1160, 0x180E, 0x200B, 0x200C, 0x200E, 0x200F, 0xFEFF, 0x3164, 0xFFA0,
    *range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xFFF0, 0xFFFD), *range(0xE000, 0xF900),
)  # fmt: skip
TABLE_END = 0x32400  # characters beyond it stay as they are and have no class
FULL_WIDTH_PUNCTUATION = "，。！？；：（）"  # full-width punctuation that Chinese text keeps


@dataclass(frozen=True)
class TextColumn:
    """A column of strings: `points` [characters], `starts` [rows + 1] into it."""

    points: CodePoints
    starts: Ints

    @property
    def rows(self) -> int:
        """Number of strings."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Characters a row, [rows]."""
        return np.diff(self.starts)


def decode(column: pa.Array) -> TextColumn:
    """An Arrow string column without nulls as code points."""
    column = column.cast(TEXT)
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    if len(offsets) == 0 or offsets[0] == offsets[-1]:
        return TextColumn(np.zeros(0, np.uint32), np.zeros(len(column) + 1, np.int64))
    data = np.frombuffer(column.buffers()[2], np.uint8)
    points, starts = np.empty(offsets[-1] - offsets[0], np.uint32), np.zeros(len(offsets), np.int64)
    _decode(data, offsets, points, starts)
    return TextColumn(points[: starts[-1]], starts)


@njit
def _decode(data: npt.NDArray[np.uint8], offsets: Ints, points: CodePoints, starts: Ints) -> None:
    written = 0
    for row in range(len(offsets) - 1):
        i = offsets[row]
        while i < offsets[row + 1]:
            point, more = np.uint32(data[i]), 0
            if point >= 0xF0:
                point, more = point & 0x07, 3
            elif point >= 0xE0:
                point, more = point & 0x0F, 2
            elif point >= 0xC0:
                point, more = point & 0x1F, 1
            for step in range(1, more + 1):
                point = (point << 6) | (data[i + step] & 0x3F)
            points[written] = point
            written += 1
            i += 1 + more
        starts[row + 1] = written


def encode(text: TextColumn) -> pa.Array:
    """Code points as an Arrow string column."""
    body, offsets = np.empty(4 * len(text.points), np.uint8), np.zeros(text.rows + 1, np.int64)
    _encode(text.points, text.starts, body, offsets)
    return pa.Array.from_buffers(TEXT, text.rows, [None, pa.py_buffer(offsets), pa.py_buffer(body[: offsets[-1]])])


@njit
def _encode(points: CodePoints, starts: Ints, body: npt.NDArray[np.uint8], offsets: Ints) -> None:
    written = 0
    for row in range(len(starts) - 1):
        for point in points[starts[row] : starts[row + 1]]:
            if point < 0x80:
                body[written] = point
                written += 1
                continue
            if point < 0x800:
                body[written], more = 0xC0 | (point >> 6), 1
            elif point < 0x10000:
                body[written], more = 0xE0 | (point >> 12), 2
            else:
                body[written], more = 0xF0 | (point >> 18), 3
            for step in range(1, more + 1):
                body[written + step] = 0x80 | ((point >> (6 * (more - step))) & 0x3F)
            written += 1 + more
        offsets[row + 1] = written


def rows_with(text: TextColumn, characters: Mask) -> Mask:
    """True for the rows with at least one of `characters` [UNICODE + 1], [rows]."""
    found = np.zeros(text.rows, bool)
    _mark_rows_with(text.points, text.starts, characters, found)
    return found


@njit
def _mark_rows_with(points: CodePoints, starts: Ints, characters: Mask, mask: Mask) -> None:
    for row in range(len(mask)):
        for i in range(starts[row], starts[row + 1]):
            if characters[points[i]]:
                mask[row] = True
                break


def take_rows(text: TextColumn, rows: Ints) -> TextColumn:
    """Some rows of a text column, in the order given."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(text.lengths[rows], out=starts[1:])
    points = np.empty(starts[-1], np.uint32)
    _copy(text.points, text.starts[rows], points, starts)
    return TextColumn(points, starts)


@njit
def _copy(source: CodePoints, heads: Ints, target: CodePoints, starts: Ints) -> None:
    for row in range(len(heads)):
        for step in range(starts[row + 1] - starts[row]):
            target[starts[row] + step] = source[heads[row] + step]


def replace_rows(text: TextColumn, rows: Ints, new: TextColumn) -> TextColumn:
    """`text` with `new[i]` in the place of row `rows[i]`; `rows` ascend."""
    lengths, starts = text.lengths, np.zeros(text.rows + 1, np.int64)
    lengths[rows] = new.lengths
    np.cumsum(lengths, out=starts[1:])
    points = np.empty(starts[-1], np.uint32)
    _replace(text.points, text.starts, rows, new.points, new.starts, points, starts)
    return TextColumn(points, starts)


@njit
def _replace(
    old: CodePoints, heads: Ints, rows: Ints, new: CodePoints, new_heads: Ints, points: CodePoints, starts: Ints
) -> None:
    done = 0
    for i in range(len(rows)):
        row = rows[i]
        points[starts[done] : starts[row]] = old[heads[done] : heads[row]]  # the rows that stay, at once
        points[starts[row] : starts[row + 1]] = new[new_heads[i] : new_heads[i + 1]]
        done = row + 1
    points[starts[done] :] = old[heads[done] :]


@cache
def _categories() -> npt.NDArray[np.str_]:
    """Unicode's general category of each code point, such as "Lu", [TABLE_END]."""
    return np.array([unicodedata.category(chr(point)) for point in range(TABLE_END)])


@cache
def char_classes() -> npt.NDArray[np.uint8]:
    """The class of each code point; OTHER are letters of other scripts, PUNCTUATION has symbols too, [UNICODE + 1]."""
    table = np.zeros(UNICODE + 1, np.uint8)
    first_letter = _categories().astype("U1")
    for letters, flag in (("L", OTHER), ("N", DIGIT), ("PS", PUNCTUATION), ("Z", WHITESPACE)):
        table[:TABLE_END][np.isin(first_letter, list(letters))] = flag
    for first, last in LATIN_RANGES:
        table[first:last][table[first:last] == OTHER] = LATIN
    for ranges, flag in ((HAN_RANGES, HAN), (KANA_RANGES, KANA)):
        for first, last in ranges:
            table[first:last] = flag
    return table


@cache
def _plain_forms() -> npt.NDArray[np.uint32]:
    """Code point -> its plain form, a space, or DELETE, in any language, [UNICODE + 1]."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    kinds = _categories()[:0x30000]  # beyond it are Han characters, some newer than this Python's Unicode
    for point in range(len(kinds)):
        if unicodedata.decomposition(chr(point)) and not _is_kept(point):
            folded = unicodedata.normalize("NFKC", chr(point))
            if len(folded) == 1:
                table[point] = ord(folded)
    table[: len(kinds)][np.isin(kinds, ["Zs", "Zl", "Zp"])] = 32
    table[: len(kinds)][np.isin(kinds, ["Cc", "Cs", "Cn"])] = DELETE
    table[[9, 10, 11, 12, 13, 0x85]] = 32
    table[0xFFFD] = 0xFFFD  # the replacement character: the row is rejected
    table[list(INVISIBLE)] = DELETE
    table[0xE0000:0xE0200] = DELETE
    return table


@cache
def normalisation_table(chinese: bool) -> npt.NDArray[np.uint32]:
    """Code point -> normalised code point or DELETE, [UNICODE + 1].

    Width forms and compatibility characters become their plain form where that is one character. Chinese keeps its
    full-width punctuation; English gets ASCII punctuation and straight quotes.
    """
    table = _plain_forms().copy()
    pairs = {"﹑": "、", "﹐": "，", "｡": "。", "､": "、", "‘": "‘"} if chinese else {}
    for stop in FULL_WIDTH_PUNCTUATION if chinese else "":
        pairs[stop] = stop
    if not chinese:
        pairs |= dict(zip("‘’‚‛“”„‟′″。、《》「」『』【】", '\'\'\'\'""""\'".,""""""[]', strict=True))
    for source, target in pairs.items():
        table[ord(source)] = ord(target)
    return table


def _is_kept(point: int) -> bool:
    """Characters whose compatibility form would lose what a prompt may mean (squared, circled, raised)."""
    return (
        point in (0xB2, 0xB3, 0xB9, 0xB7, 0xB4, 0xA8, 0xAF, 0xB8)
        or 0x2070 <= point < 0x20A0
        or (0x2460 <= point < 0x2500 or 0x3200 <= point < 0x3400 or 0x1F100 <= point < 0x1F200)
    )


@cache
def char_mask(characters: str) -> npt.NDArray[np.bool_]:
    """True for the code points of `characters`, [UNICODE + 1]; indexing it is faster than numpy's isin."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[[ord(c) for c in characters]] = True
    return mask


_CHINESE = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0xF900, 0xFB00), *range(0x20000, 0x2A6E0)]


def opencc_single_chars(converter: opencc.OpenCC) -> dict[int, str]:
    """Code point -> conversion of its character alone, for all characters that `converter` changes."""
    converted = converter.convert("\n".join(map(chr, _CHINESE))).split("\n")
    return {point: new for point, new in zip(_CHINESE, converted, strict=True) if new != chr(point)}
