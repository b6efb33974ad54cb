"""Normalisation of one column: mojibake, mark-up, width, invisible characters, spaces, stops, simplified characters.

Mark-up out of text: HTML tags and entities, wiki quotes, subtitle codes; only in the rows that show its signs.

Text whose UTF-8 was once read as Windows-1252 or Latin-1, put right by ftfy; only in the rows that look like it.

Speaker names, dialogue dashes, sound notes and credits of subtitles.
"""

import html
import re
from collections.abc import Callable
from functools import cache

import numpy as np
import opencc
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.characters import char_mask, normalisation_table, opencc_single_chars
from data.clean.codepoints import (
    UNICODE,
    CodePoints,
    Ints,
    Mask,
    TextColumn,
    decode,
    encode,
    replace_rows,
    rows_with,
    take_rows,
)
from data.clean.spacing import collapse_spaces, remove_han_spaces, strip_space_before_punctuation, widen_punctuation
from data.jit import njit
from data.schema import TEXT

TAGS = re.compile(r"<[^<>\n]{1,120}>|\{\\[^{}\n]{0,200}(?:\}|$)|'{2,5}|\{[yY]:[a-z]{1,9}\}", re.MULTILINE)
ENTITY = re.compile(r"&(?:amp;)?(#?[0-9A-Za-z]{2,10};)")
BREAKS = re.compile(r"\\[Nnh]|<br ?/?>", re.IGNORECASE)
MARKUP_SIGNS = "<&{\\"  # a row with none of these, nor two apostrophes together, has no mark-up
QUOTE = ord("'")


def edit_rows(text: TextColumn, rows: Mask, edit: Callable[[str], str]) -> TextColumn:
    """Apply `edit` to the few rows where `rows` is true, all in one string with a line a row."""
    chosen = np.flatnonzero(rows)
    if not len(chosen):
        return text
    column = pc.replace_substring_regex(encode(take_rows(text, chosen)), "[\\n\\r]", " ")
    changed = edit("\n".join(column.to_pylist())).split("\n")
    if len(changed) != len(chosen):
        raise AssertionError("an edit changed the number of lines")
    return replace_rows(text, chosen, decode(pa.array(changed, TEXT)))


def has_markup(text: TextColumn) -> Mask:
    """True for the rows that may hold mark-up, [rows]."""
    found = np.zeros(text.rows, bool)
    _marked(text.points, text.starts, char_mask(MARKUP_SIGNS), found)
    return found


@njit
def _marked(points: CodePoints, starts: Ints, signs: Mask, found: Mask) -> None:
    for row in range(len(found)):
        quoted = False
        for point in points[starts[row] : starts[row + 1]]:
            found[row] |= signs[point] or (quoted and point == QUOTE)
            quoted = point == QUOTE


def strip_markup(lines: str) -> str:
    """HTML entities resolved (also twice-escaped ones), tags and subtitle codes removed."""
    lines = ENTITY.sub(_entity, lines)
    return TAGS.sub("", BREAKS.sub(" ", lines))


def _entity(match: re.Match[str]) -> str:
    plain = html.unescape("&" + match.group(1))
    return match.group(0) if plain.startswith("&") and len(plain) > 1 else plain.replace("\n", " ").replace("\r", " ")


FIRST_LEAD, LAST_LEAD = 0xC2, 0xF4  # bytes that begin a character of several bytes, and the letters they are read as


@cache
def _continuation_chars() -> Mask:
    """True for what the bytes 0x80 to 0xBF are read as, [UNICODE + 1]."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[0x80:0xC0] = True
    mask[[ord(c) for c in bytes(range(0x80, 0xC0)).decode("cp1252", "ignore")]] = True
    return mask


def has_mojibake(text: TextColumn) -> Mask:
    """True for the rows where such a letter stands before such a sign; ftfy then decides, [rows]."""
    found = np.zeros(text.rows, bool)
    _garbled(text.points, text.starts, _continuation_chars(), found)
    return found


@njit
def _garbled(points: CodePoints, starts: Ints, continuing: Mask, found: Mask) -> None:
    for row in range(len(found)):
        lead = False
        for point in points[starts[row] : starts[row + 1]]:
            found[row] |= lead and continuing[point]
            lead = FIRST_LEAD <= point <= LAST_LEAD


def fix_mojibake(lines: str) -> str:
    """Each line as it was meant, where ftfy is sure; a line stays a line."""
    import ftfy  # most corpora never need it

    return "\n".join(ftfy.fix_encoding(line).replace("\n", " ") for line in lines.split("\n"))


def normalise_text(text: TextColumn, chinese: bool, simplify: bool, spaces: str) -> TextColumn:
    """`text` in its normal form; a row may come out empty, never lost."""
    text = edit_rows(text, has_mojibake(text), fix_mojibake)
    text = collapse_spaces(edit_rows(text, has_markup(text), strip_markup), normalisation_table(chinese))
    if not chinese:
        return strip_space_before_punctuation(text)
    if simplify:
        text = edit_rows(text, rows_with(text, traditional_chars()), opencc_t2s().convert)
    return widen_punctuation(text if spaces == "keep" else remove_han_spaces(text, spaces == "comma"))


@cache
def opencc_t2s() -> opencc.OpenCC:
    """OpenCC, traditional to simplified; its phrases decide the characters that stand for several."""
    return opencc.OpenCC("t2s")


@cache
def traditional_chars() -> Mask:
    """True for each code point that OpenCC changes when it stands alone, [UNICODE + 1]."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[list(opencc_single_chars(opencc_t2s()))] = True
    return mask


TUPLE = r"^\('\d[^']{0,8}', ?'[^']{0,40}'\) ?"  # a speaker mark that some corpora carry
DASH = r"(^|[.?!…,，。？！] ?| )[-–—]+ ?"  # a dialogue dash: at the start, after a sentence's end, after a space
NAME = r"^(\[[^\]]{1,30}\]|\([A-Z][^)]{0,30}\)|[A-Z][A-Z.' ]{1,23}:|[A-Z][a-z]{2,11}:) ?"
CHINESE_NAME = r"^[\p{Han}·]{1,6}[:：] ?"
NOTE = r"^[\[【][^\]】]{1,12}[\]】] ?"  # [韩语] before a translated line
SONG = r"^[*#♪♫~ ]+|[*#♪♫~ ]+$"
TRANSLATOR_NOTE = (
    r"[(（\[【][^()（）\[\]【】]{1,40}[)）\]】]"  # the translator's explanation, which the English does not have
)
CREDIT = (
    r"字幕(组|校对|翻译|制作)|(翻译|校对|时间轴|压制|听译|后期|总监|特效)[:：]|人人影视|YYeTs|伊甸园|"
    r"(?i:subtitles? by|sync(ed)? (and|&) correct|opensubtitles|addic7ed|transcript by|www\.[a-z])"
)


SUBTITLE_SIGNS = "-–—:(（[【*#♪♫~"  # a row without one of these has nothing to strip


def has_speaker_marks(en: TextColumn, zh: TextColumn) -> Mask:
    """True where either side holds a sign of what `without_speakers` strips, [rows]."""
    return rows_with(en, char_mask(SUBTITLE_SIGNS)) | rows_with(zh, char_mask(SUBTITLE_SIGNS))


def strip_speakers(en: pa.Array, zh: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both sides without speaker marks, dashes, song marks and notes.

    A Chinese "name:" or aside goes only where the English shows that it is not part of what is said.
    """
    en, zh = (pc.replace_substring_regex(side, TUPLE, "") for side in (en, zh))
    named = pc.match_substring_regex(en, NAME)
    en = pc.replace_substring_regex(pc.replace_substring_regex(en, NAME, ""), SONG, "")
    zh = pc.if_else(named, pc.replace_substring_regex(zh, CHINESE_NAME, ""), zh)
    noted = pc.replace_substring_regex(zh, NOTE, "")
    zh = pc.if_else(pc.or_(pc.match_substring(en, "["), pc.equal(noted, "")), zh, noted)
    bare = pc.replace_substring_regex(zh, TRANSLATOR_NOTE, "")
    zh = pc.if_else(pc.or_(pc.match_substring_regex(en, r"[(\[]"), pc.equal(bare, "")), zh, bare)
    zh = pc.replace_substring_regex(zh, SONG, "")
    return pc.replace_substring_regex(en, DASH, r"\1"), pc.replace_substring_regex(zh, DASH, r"\1")


def is_credit(en: pa.Array, zh: pa.Array) -> pa.Array:
    """True where either side is a subtitle group's credit."""
    return pc.or_(pc.match_substring_regex(en, CREDIT), pc.match_substring_regex(zh, CREDIT))
