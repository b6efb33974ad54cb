"""Character classes, one byte of flags a code point, and the tables of normalisation."""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt
import opencc

from data.clean.codepoints import UNICODE

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
