"""Text whose UTF-8 was once read as Windows-1252 or Latin-1, put right by ftfy; only in the rows that look like it."""

from functools import cache

import numpy as np

from data.clean.codepoints import UNICODE, Ints, Mask, Points, Text
from data.compiled import compiled

FIRST_LEAD, LAST_LEAD = 0xC2, 0xF4  # bytes that begin a character of several bytes, and the letters they are read as


@cache
def _continuing() -> Mask:
    """True for what the bytes 0x80 to 0xBF are read as, [UNICODE + 1]."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[0x80:0xC0] = True
    mask[[ord(c) for c in bytes(range(0x80, 0xC0)).decode("cp1252", "ignore")]] = True
    return mask


def garbled(text: Text) -> Mask:
    """True for the rows where such a letter stands before such a sign; ftfy then decides, [rows]."""
    found = np.zeros(text.rows, bool)
    _garbled(text.points, text.starts, _continuing(), found)
    return found


@compiled
def _garbled(points: Points, starts: Ints, continuing: Mask, found: Mask) -> None:
    for row in range(len(found)):
        lead = False
        for point in points[starts[row] : starts[row + 1]]:
            found[row] |= lead and continuing[point]
            lead = FIRST_LEAD <= point <= LAST_LEAD


def repaired(lines: str) -> str:
    """Each line as it was meant, where ftfy is sure; a line stays a line."""
    import ftfy  # most corpora never need it

    return "\n".join(ftfy.fix_encoding(line).replace("\n", " ") for line in lines.split("\n"))
