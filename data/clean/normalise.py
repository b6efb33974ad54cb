"""Normal form of a pair: mojibake, mark-up, width, invisible characters, spaces, stops, simplified characters.

Costly steps (ftfy, regular expressions, OpenCC, speakers' names of subtitles) run on the rows that show their signs.
"""

import html
import re
from collections.abc import Callable
from functools import cache

import numpy as np
import opencc
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.characters import (
    UNICODE,
    CodePoints,
    Ints,
    Mask,
    TextColumn,
    char_mask,
    decode,
    encode,
    normalisation_table,
    opencc_single_chars,
    replace_rows,
    rows_with,
    take_rows,
)
from data.clean.spacing import collapse_spaces, remove_han_spaces, strip_space_before_punctuation, widen_punctuation
from data.jit import njit
from data.sources.io import TEXT


def normalise_pair(
    en: TextColumn, zh: TextColumn, simplify: bool, spaces: str, speakers: bool
) -> tuple[TextColumn, TextColumn]:
    """Both sides in their normal form; `simplify`, `spaces` and `speakers` are those of a source."""
    en = normalise_text(en, chinese=False, simplify=False, spaces="keep")
    zh = normalise_text(zh, chinese=True, simplify=simplify, spaces=spaces)
    rows = np.flatnonzero(has_speaker_marks(en, zh)) if speakers else np.zeros(0, np.int64)
    if not len(rows):
        return en, zh
    spoken_en, spoken_zh = strip_speakers(encode(take_rows(en, rows)), encode(take_rows(zh, rows)))
    return (
        replace_rows(en, rows, normalise_text(decode(spoken_en), chinese=False, simplify=False, spaces="keep")),
        replace_rows(zh, rows, normalise_text(decode(spoken_zh), chinese=True, simplify=False, spaces=spaces)),
    )


def normalise_text(text: TextColumn, chinese: bool, simplify: bool, spaces: str) -> TextColumn:
    """`text` in its normal form; a row may come out empty, never lost."""
    text = edit_rows(text, has_mojibake(text), fix_mojibake)
    text = collapse_spaces(edit_rows(text, has_markup(text), strip_markup), normalisation_table(chinese))
    text = edit_rows(text, is_tokenised(text), detokenise)
    if not chinese:
        return strip_space_before_punctuation(text)
    if simplify:
        text = edit_rows(text, rows_with(text, traditional_chars()), opencc_t2s().convert)
    return widen_punctuation(text if spaces == "keep" else remove_han_spaces(text, spaces == "comma"))


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


TAGS = re.compile(  # with a name and attributes, so that "a < b and c > d" stays; subtitle codes; wiki quotes
    r"</?[A-Za-z][\w:.-]{0,30}(?:\s+[\w:-]+\s*=[^<>\n]{1,110}|\s*/?)>|<[!?/][^<>\n]{0,118}>|<\d[\d:.,]{0,20}>|"
    r"\{\\[^{}\n]{0,200}(?:\}|$)|'{2,5}|\{[yY]:[a-z]{1,9}\}",
    re.MULTILINE,
)
PENN_QUOTES = re.compile(r"`` ?(.*?) ?''")
ENTITY = re.compile(r"&(?:amp;)?(#?[0-9A-Za-z]{2,10};)")
BREAKS = re.compile(r"\\[Nnh]|<br ?/?>", re.IGNORECASE)
MARKUP_SIGNS = "<&{\\"  # a row with none of these, nor two apostrophes together, has no mark-up


def has_markup(text: TextColumn) -> Mask:
    """True for the rows that may hold mark-up, [rows]."""
    mask = np.zeros(text.rows, bool)
    _mark_markup(text.points, text.starts, char_mask(MARKUP_SIGNS), mask)
    return mask


@njit
def _mark_markup(points: CodePoints, starts: Ints, signs: Mask, mask: Mask) -> None:
    for row in range(len(mask)):
        quoted = False
        for point in points[starts[row] : starts[row + 1]]:
            mask[row] |= signs[point] or (quoted and point == APOSTROPHE)
            quoted = point == APOSTROPHE


def strip_markup(lines: str) -> str:
    """HTML entities resolved (also twice-escaped ones), tags and subtitle codes removed."""
    lines = PENN_QUOTES.sub(r'"\1"', ENTITY.sub(_resolve_entity, lines))
    return TAGS.sub("", BREAKS.sub(" ", lines))


def _resolve_entity(match: re.Match[str]) -> str:
    plain = html.unescape("&" + match.group(1))
    return match.group(0) if plain.startswith("&") and len(plain) > 1 else plain.replace("\n", " ").replace("\r", " ")


APOSTROPHE, SPACE, AT, DASH, COMMA, DOT, COLON, ZERO, NINE, B, L, N, R = (ord(c) for c in "' @-,.:09blnr")
PENN_BRACKETS = {"LR": "(", "RR": ")", "LS": "[", "RS": "]", "LC": "{", "RC": "}"}
DETOKENISED: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<=\d) , (?=\d{3}(?!\d))|(?<=\d) ([.:]) (?=\d)"), lambda match: match[1] or ","),
    (re.compile(r" (n't|'(?:s|m|re|ve|ll|d))(?![\w'])", re.IGNORECASE), r"\1"),
    (re.compile(r"(?<=[a-z]) ' (s|t|m|re|ve|ll|d)(?![\w'])", re.IGNORECASE), r"'\1"),
    (re.compile(r" ?@([-,.:/])@ ?"), r"\1"),
    (re.compile(r"-([LR][RSC])B-", re.IGNORECASE), lambda match: PENN_BRACKETS[match[1].upper()]),
    (re.compile(r"(?<=[(\[{]) | (?=[)\]}])"), ""),
)  # what the tokenisers of Penn Treebank and Moses write, and the text that it was


def is_tokenised(text: TextColumn) -> Mask:
    """True for the rows that show signs of a tokeniser: "do n't", "@-@", "-LRB-", "1 , 000", [rows]."""
    mask = np.zeros(text.rows, bool)
    _mark_tokenised(text.points, text.starts, mask)
    return mask


@njit
def _mark_tokenised(points: CodePoints, starts: Ints, mask: Mask) -> None:
    for row in range(len(mask)):
        for i in range(starts[row], starts[row + 1] - 2):
            first = points[i]
            if first > AT:  # most characters, and none of the signs
                continue
            second, third = points[i + 1], points[i + 2]
            if first == SPACE:
                mask[row] |= second == APOSTROPHE or (second | 32 == N and third == APOSTROPHE)
            elif second == SPACE:
                mask[row] |= ZERO <= first <= NINE and third in (COMMA, DOT, COLON)
            elif first == AT:
                mask[row] |= third == AT
            elif first == DASH and i + 3 < starts[row + 1]:
                mask[row] |= (second | 32 in (L, R)) and points[i + 3] | 32 == B


def detokenise(lines: str) -> str:
    """The text that a tokeniser took apart, as far as its signs tell."""
    for pattern, replacement in DETOKENISED:
        lines = pattern.sub(replacement, lines)
    return lines


FIRST_LEAD, LAST_LEAD = 0xC2, 0xF4  # the letters that the first byte of a UTF-8 character is misread as


@cache
def _continuation_chars() -> Mask:
    """True for what the bytes 0x80 to 0xBF are misread as, [UNICODE + 1]."""
    mask = np.zeros(UNICODE + 1, bool)
    mask[0x80:0xC0] = True
    mask[[ord(c) for c in bytes(range(0x80, 0xC0)).decode("cp1252", "ignore")]] = True
    return mask


def has_mojibake(text: TextColumn) -> Mask:
    """True for the rows where a misread first byte stands before a misread second one; ftfy then decides, [rows]."""
    mask = np.zeros(text.rows, bool)
    _mark_mojibake(text.points, text.starts, _continuation_chars(), mask)
    return mask


@njit
def _mark_mojibake(points: CodePoints, starts: Ints, continuing: Mask, mask: Mask) -> None:
    for row in range(len(mask)):
        lead = False
        for point in points[starts[row] : starts[row + 1]]:
            mask[row] |= lead and continuing[point]
            lead = FIRST_LEAD <= point <= LAST_LEAD


def fix_mojibake(lines: str) -> str:
    """UTF-8 that was read as Windows-1252 or Latin-1, put right where ftfy is sure; a line stays a line."""
    import ftfy  # most corpora never need it

    return "\n".join(ftfy.fix_encoding(line).replace("\n", " ") for line in lines.split("\n"))


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


SPEAKER_SIGNS = "-–—:(（[【*#♪♫~"  # a row without one of these has nothing to strip
SPEAKER_TUPLE = r"^\('\d[^']{0,8}', ?'[^']{0,40}'\) ?"  # a speaker mark that some corpora carry
SPEAKER_NAME = r"^(\[[^\]]{1,30}\]|\([A-Z][^)]{0,30}\)|[A-Z][A-Z.' ]{1,23}:|[A-Z][a-z]{2,11}:) ?"
SPEAKER_NAME_ZH = r"^[\p{Han}·]{1,6}[:：] ?"
DIALOGUE_DASH = r"(^|[.?!…,，。？！] ?| )[-–—]+ ?"  # at the start, after a sentence's end, after a space
SOUND_NOTE = (  # of both languages, anywhere
    r"(?i)[(\[](?:laugh|applau|music|cheer|sigh|gasp|cough|chuckl|clap|sob|cry|scream|gunshot|thunder|bell|phone ring|"
    r"door)[^()\[\]]{0,30}[)\]]|\[[^\[\]]{1,40}\]"
)
SOUND_NOTE_ZH = (
    r"[(（\[【][^()（）\[\]【】《》]{0,6}(?:声|笑|鼓掌|音乐|哭|叹气|咳嗽|尖叫)[^()（）\[\]【】《》]{0,4}[)）\]】]"
)
LANGUAGE_NOTE = r"^[\[【][^\]】]{1,12}[\]】] ?"  # [韩语] before a translated line
SONG_MARKS = r"^[*#♪♫~ ]+|[*#♪♫~ ]+$"
TRANSLATOR_NOTE = r"[(（\[【][^()（）\[\]【】]{1,40}[)）\]】]"  # an explanation that the English does not have
CREDIT = (
    r"字幕(组|校对|翻译|制作)|(翻译|校对|时间轴|压制|听译|后期|总监|特效)[:：]|人人影视|YYeTs|伊甸园|"
    r"(?i:subtitles? by|sync(ed)? (and|&) correct|opensubtitles|addic7ed|transcript by|www\.[a-z])"
)


def has_speaker_marks(en: TextColumn, zh: TextColumn) -> Mask:
    """True where either side holds a sign of what `strip_speakers` removes, [rows]."""
    return rows_with(en, char_mask(SPEAKER_SIGNS)) | rows_with(zh, char_mask(SPEAKER_SIGNS))


def strip_speakers(en: pa.Array, zh: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both sides without speakers' names, dialogue dashes, song marks and notes.

    A Chinese "name:" or aside goes only where the English shows that it is not part of what is said.
    """
    en, zh = (pc.replace_substring_regex(side, SPEAKER_TUPLE, "") for side in (en, zh))
    named = pc.match_substring_regex(en, SPEAKER_NAME)
    en = pc.replace_substring_regex(pc.replace_substring_regex(en, SPEAKER_NAME, ""), SONG_MARKS, "")
    zh = pc.if_else(named, pc.replace_substring_regex(zh, SPEAKER_NAME_ZH, ""), zh)
    en, zh = pc.replace_substring_regex(en, SOUND_NOTE, ""), pc.replace_substring_regex(zh, SOUND_NOTE_ZH, "")
    for note, sign_in_en in ((LANGUAGE_NOTE, r"\["), (TRANSLATOR_NOTE, r"[(\[]")):
        without = pc.replace_substring_regex(zh, note, "")
        zh = pc.if_else(pc.or_(pc.match_substring_regex(en, sign_in_en), pc.equal(without, "")), zh, without)
    zh = pc.replace_substring_regex(zh, SONG_MARKS, "")
    return pc.replace_substring_regex(en, DIALOGUE_DASH, r"\1"), pc.replace_substring_regex(zh, DIALOGUE_DASH, r"\1")


def is_credit(en: pa.Array, zh: pa.Array) -> pa.Array:
    """True where either side is a subtitle group's credit."""
    return pc.or_(pc.match_substring_regex(en, CREDIT), pc.match_substring_regex(zh, CREDIT))
