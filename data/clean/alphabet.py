"""Which characters are what: one byte of flags a code point, and the tables of normalisation."""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import UNICODE

HAN, LATIN, DIGIT, SPACE, KANA, OTHER, MARK, OPEN = (np.uint8(1 << bit) for bit in range(8))
DELETE = UNICODE  # a normalisation table's word for "drop this character": its own last place

HAN_RANGES = ((0x3007, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x32400))
KANA_RANGES = ((0x3041, 0x30FB), (0x30FC, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFF9E))
INVISIBLE = (
    0xAD,
    0x61C,
    0x115F,
    0x1160,
    0x180E,
    0x200B,
    0x200C,
    0x200E,
    0x200F,
    0xFEFF,
    0x3164,
    0xFFA0,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFFF0, 0xFFFD),
    *range(0xE000, 0xF900),
)
FULL_STOPS = "，。！？；：（）"  # full-width punctuation that Chinese text keeps


@cache
def flags() -> npt.NDArray[np.uint8]:
    """HAN, LATIN, DIGIT, SPACE, KANA, OTHER (letters of other scripts), MARK (punctuation, symbols), [UNICODE]."""
    table = np.zeros(UNICODE + 1, np.uint8)
    for point in range(0x32400):
        kind = unicodedata.category(chr(point))
        if kind[0] == "L":
            table[point] = LATIN if _latin(point) else OTHER
        elif kind[0] == "N":
            table[point] = DIGIT
        elif kind[0] in "PS":
            table[point] = MARK
        elif kind[0] == "Z":
            table[point] = SPACE
    for ranges, flag in ((HAN_RANGES, HAN), (KANA_RANGES, KANA)):
        for first, last in ranges:
            table[first:last] = flag
    return table


def _latin(point: int) -> bool:
    return point < 0x250 or 0x1E00 <= point < 0x1F00 or 0xFF21 <= point < 0xFF5B


@cache
def _plain() -> npt.NDArray[np.uint32]:
    """Code point -> its plain twin, a space, or DELETE, whatever the language, [UNICODE + 1]."""
    table = np.arange(UNICODE + 1, dtype=np.uint32)
    for point in range(0x30000):
        folded = unicodedata.normalize("NFKC", chr(point)) if not _keeps(point) else chr(point)
        if len(folded) == 1:
            table[point] = ord(folded)
        kind = unicodedata.category(chr(point))
        if kind in ("Zs", "Zl", "Zp") or point in (9, 10, 11, 12, 13, 0x85):
            table[point] = 32
        elif kind in ("Cc", "Cs", "Cn") and point != 0xFFFD:
            table[point] = DELETE
    table[list(INVISIBLE)] = DELETE
    table[0xE0000:0xE0200] = DELETE
    return table


@cache
def mapping(chinese: bool) -> npt.NDArray[np.uint32]:
    """Code point -> normalised code point or DELETE, [UNICODE + 1].

    Width forms and compatibility characters become their plain twin when that is one character. Chinese keeps its
    own full-width stops; English gets ASCII ones, and straight quotes.
    """
    table = _plain().copy()
    pairs = {"﹑": "、", "﹐": "，", "｡": "。", "､": "、", "‘": "‘"} if chinese else {}
    for stop in FULL_STOPS if chinese else "":
        pairs[stop] = stop
    if not chinese:
        pairs |= dict(zip("‘’‚‛“”„‟′″。、《》「」『』【】", '\'\'\'\'""""\'".,""""""[]', strict=True))
    for source, target in pairs.items():
        table[ord(source)] = ord(target)
    return table


def _keeps(point: int) -> bool:
    """Characters whose compatibility form would lose something that a prompt may mean (squared, circled, raised)."""
    return (
        point in (0xB2, 0xB3, 0xB9, 0xB7, 0xB4, 0xA8, 0xAF, 0xB8)
        or 0x2070 <= point < 0x20A0
        or (0x2460 <= point < 0x2500 or 0x3200 <= point < 0x3400 or 0x1F100 <= point < 0x1F200)
    )


@cache
def among(characters: str) -> npt.NDArray[np.bool_]:
    """True for the code points of `characters`, [UNICODE + 1]; indexing it is faster than numpy's isin."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[[ord(c) for c in characters]] = True
    return mask
