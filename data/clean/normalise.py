"""Normalisation of one column: mojibake, mark-up, width, invisible characters, spaces, stops, simplified characters."""

from functools import cache

import numpy as np
import opencc

from data.clean.alone import changed_alone
from data.clean.alphabet import mapping
from data.clean.codepoints import UNICODE, Mask, Text, holding
from data.clean.markup import edited, marked, unmarked
from data.clean.mojibake import garbled, repaired
from data.clean.spacing import closed_up, punctuated, settled, unspaced_closings


def normalised(text: Text, chinese: bool, simplify: bool, spaces: str) -> Text:
    """`text` in its normal form; a row may come out empty, never lost."""
    text = edited(text, garbled(text), repaired)
    text = settled(edited(text, marked(text), unmarked), mapping(chinese))
    if not chinese:
        return unspaced_closings(text)
    if simplify:
        text = edited(text, holding(text, traditional()), converter().convert)
    return punctuated(text if spaces == "keep" else closed_up(text, spaces == "comma"))


@cache
def converter() -> opencc.OpenCC:
    """OpenCC, traditional to simplified; its phrases decide the characters that stand for several."""
    return opencc.OpenCC("t2s")


@cache
def traditional() -> Mask:
    """True for each code point that OpenCC changes when it stands alone, [UNICODE + 1]."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[list(changed_alone(converter()))] = True
    return mask
