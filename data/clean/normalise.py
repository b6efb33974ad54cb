"""Normalisation of one column: mark-up, width, invisible characters, spaces, punctuation, simplified characters."""

import html
import re
from collections.abc import Callable
from functools import cache

import numpy as np
import opencc
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.alphabet import DELETE, HAN, among, flags, mapping
from data.clean.codepoints import UNICODE, Mask, Text, decode, encode, following, previous
from data.pair import TEXT

TAGS = re.compile(r"<[^<>\n]{1,120}>|\{\\[^{}\n]{0,200}(?:\}|$)|'{2,5}|\{[yY]:[a-z]{1,9}\}", re.MULTILINE)
ENTITY = re.compile(r"&(?:amp;)?(#?[0-9A-Za-z]{2,10};)")
BREAKS = re.compile(r"\\[Nnh]|<br ?/?>", re.IGNORECASE)
RAW_SIGNS = "[<&{\\\\]|''"  # a row without one of these has no mark-up
CLOSE = ",.!?;:)%]"  # English: no space before these
FULL = dict(zip(",;:?!", "，；：？！", strict=True))  # Chinese: after a Han character


def normalised(column: pa.Array, chinese: bool, simplify: bool, spaces: str) -> Text:
    """`column` in its normal form; a row may come out empty, never lost."""
    column = edited(column, pc.match_substring_regex(column, RAW_SIGNS), unmarked)
    text = decode(column)
    points = mapping(chinese)[text.points]
    text = Text(points, text.starts).keep(points != DELETE)
    text = single_spaces(text)
    if not chinese:
        return unspaced_closings(text)
    if simplify:
        text = simplified(text)
    return chinese_punctuation(chinese_spaces(text, spaces))


def edited(column: pa.Array, rows: pa.Array, edit: Callable[[str], str]) -> pa.Array:
    """Apply `edit` to the few rows where `rows` is true, all in one string with a line a row."""
    if not pc.any(rows).as_py():
        return column
    chosen = pc.replace_substring_regex(column.filter(rows), "[\\n\\r\\x{85}\\x{2028}\\x{2029}]", " ")
    changed = edit("\n".join(chosen.to_pylist())).split("\n")
    if len(changed) != len(chosen):
        raise AssertionError("an edit changed the number of lines")
    return pc.replace_with_mask(column, rows, pa.array(changed, TEXT))


def unmarked(lines: str) -> str:
    """HTML entities resolved (also twice-escaped ones), tags and subtitle codes removed."""
    lines = ENTITY.sub(_entity, lines)
    return TAGS.sub("", BREAKS.sub(" ", lines))


def _entity(match: re.Match[str]) -> str:
    plain = html.unescape("&" + match.group(1))
    return match.group(0) if plain.startswith("&") and len(plain) > 1 else plain.replace("\n", " ").replace("\r", " ")


def single_spaces(text: Text) -> Text:
    """Runs of spaces become one; none at either end."""
    space = text.points == 32
    text = text.keep(~(space & (previous(space) & ~text.firsts())))
    space = text.points == 32
    text = text.keep(~(space & text.firsts()))
    return text.keep(~((text.points == 32) & text.lasts()))


def unspaced_closings(text: Text) -> Text:
    """English: "high , wide !" becomes "high, wide!"."""
    closing = among(CLOSE)[text.points]
    after = following(closing) & ~text.lasts()
    dots = following(following(text.points)) == ord(".")  # keep the space before an ellipsis and before ".5"
    return text.keep(~((text.points == 32) & after & ~dots))


def chinese_spaces(text: Text, spaces: str) -> Text:
    """Chinese: a space between Han characters or next to full-width punctuation goes, or becomes a comma."""
    space = text.points == 32
    if spaces == "keep" or not space.any():
        return text
    digit = (text.points >= 48) & (text.points <= 57)
    text = text.keep(~(space & previous(digit) & (following(text.points) == ord(","))))
    space = text.points == 32
    han, wide = _han(text), _wide(text)
    left, right = previous(han | wide), following(han | wide)
    between = space & left & right
    if spaces == "comma":
        pause = space & previous(han) & following(han)
        points = text.points.copy()
        points[pause] = ord("，")
        text, between = Text(points, text.starts), between & ~pause
    return text.keep(~(between | (space & (previous(wide) | following(wide)))))


def chinese_punctuation(text: Text) -> Text:
    """Chinese: ASCII stops after a Han character become full-width; a closing "." becomes "。"."""
    digit = (text.points >= 48) & (text.points <= 57)
    thousands = (text.points == ord("，")) & previous(digit) & following(digit)
    text = Text(np.where(thousands, np.uint32(ord(",")), text.points), text.starts)
    after = previous(_han(text) | (text.points == ord("”"))).astype(bool) & ~text.firsts()
    points = text.points.copy()
    for ascii_sign, full_sign in FULL.items():
        points[after & (points == ord(ascii_sign))] = ord(full_sign)
    stop = after & (points == ord(".")) & (text.lasts() | (following(points) != ord(".")))
    points[stop & (text.lasts() | following(_han(text)))] = ord("。")
    return Text(points, text.starts)


def _han(text: Text) -> Mask:
    mask: Mask = (flags()[text.points] & HAN) != 0
    return mask


def _wide(text: Text) -> Mask:
    points = text.points
    return ((points >= 0x3001) & (points <= 0x301F)) | ((points >= 0xFF01) & (points <= 0xFF5E))


@cache
def converter() -> opencc.OpenCC:
    """OpenCC, traditional to simplified."""
    return opencc.OpenCC("t2s")


@cache
def traditional() -> Mask:
    """True for each code point that OpenCC changes when it stands alone, [UNICODE + 1]."""
    points = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0xF900, 0xFB00), *range(0x20000, 0x2A6E0)]
    lines = "\n".join(map(chr, points))
    changed = converter().convert(lines).split("\n")
    mask = np.zeros(UNICODE + 1, bool)
    mask[[p for p, new in zip(points, changed, strict=True) if new != chr(p)]] = True
    return mask


def simplified(text: Text) -> Text:
    """Rows that hold a traditional character go through OpenCC, whose phrases decide doubtful ones."""
    rows = text.total(traditional()[text.points]) > 0
    if not rows.any():
        return text
    return decode(edited(encode(text), pa.array(rows), converter().convert))
