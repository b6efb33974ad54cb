"""Speaker names, dialogue dashes, sound notes and credits of subtitles."""

import pyarrow as pa
import pyarrow.compute as pc

from data.clean.alphabet import among
from data.clean.codepoints import Mask, Text, holding

TUPLE = r"^\('\d[^']{0,8}', ?'[^']{0,40}'\) ?"  # a speaker mark that some corpora carry
DASH = r"(^|[.?!…,，。？！] ?| )[-–—]+ ?"  # a dialogue dash: at the start, after a sentence's end, after a space
NAME = r"^(\[[^\]]{1,30}\]|\([A-Z][^)]{0,30}\)|[A-Z][A-Z.' ]{1,23}:|[A-Z][a-z]{2,11}:) ?"
CHINESE_NAME = r"^[\p{Han}·]{1,6}[:：] ?"
NOTE = r"^[\[【][^\]】]{1,12}[\]】] ?"  # [韩语] before a translated line
SONG = r"^[*#♪♫~ ]+|[*#♪♫~ ]+$"
ASIDE = r"[(（\[【][^()（）\[\]【】]{1,40}[)）\]】]"  # the translator's explanation, which the English does not have
CREDIT = (
    r"字幕(组|校对|翻译|制作)|(翻译|校对|时间轴|压制|听译|后期|总监|特效)[:：]|人人影视|YYeTs|伊甸园|"
    r"(?i:subtitles? by|sync(ed)? (and|&) correct|opensubtitles|addic7ed|transcript by|www\.[a-z])"
)


SIGNS = "-–—:(（[【*#♪♫~"  # a row without one of these has nothing to strip


def spoken_rows(en: Text, zh: Text) -> Mask:
    """True where either side holds a sign of what `without_speakers` strips, [rows]."""
    return holding(en, among(SIGNS)) | holding(zh, among(SIGNS))


def without_speakers(en: pa.Array, zh: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both sides without speaker marks, dashes, song marks and notes.

    A Chinese "name:" or aside goes only where the English shows that it is not part of what is said.
    """
    en, zh = (pc.replace_substring_regex(side, TUPLE, "") for side in (en, zh))
    named = pc.match_substring_regex(en, NAME)
    en = pc.replace_substring_regex(pc.replace_substring_regex(en, NAME, ""), SONG, "")
    zh = pc.if_else(named, pc.replace_substring_regex(zh, CHINESE_NAME, ""), zh)
    noted = pc.replace_substring_regex(zh, NOTE, "")
    zh = pc.if_else(pc.or_(pc.match_substring(en, "["), pc.equal(noted, "")), zh, noted)
    bare = pc.replace_substring_regex(zh, ASIDE, "")
    zh = pc.if_else(pc.or_(pc.match_substring_regex(en, r"[(\[]"), pc.equal(bare, "")), zh, bare)
    zh = pc.replace_substring_regex(zh, SONG, "")
    return pc.replace_substring_regex(en, DASH, r"\1"), pc.replace_substring_regex(zh, DASH, r"\1")


def is_credit(en: pa.Array, zh: pa.Array) -> pa.Array:
    """True where either side is a subtitle group's credit."""
    return pc.or_(pc.match_substring_regex(en, CREDIT), pc.match_substring_regex(zh, CREDIT))
