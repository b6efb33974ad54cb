"""Speaker names, dialogue dashes, sound notes and credits of subtitles."""

import pyarrow as pa
import pyarrow.compute as pc

DASH = r"(^|[.?!…,，。？！]) ?[-–—]+ ?"  # a dialogue dash: at the start, or after a sentence's end
NAME = r"^(\[[^\]]{1,30}\]|\([A-Z][^)]{0,30}\)|[A-Z][A-Z.' ]{1,23}:|[A-Z][a-z]{2,11}:) ?"
SOUND = r"^[\[(（【*♪#][^\])）】]*[\])）】*♪#]$"  # the whole line is [door creaks] or a song mark
CHINESE_NAME = r"^[\p{Han}·]{1,6}[:：] ?"
CREDIT = (
    r"字幕(组|校对|翻译|制作|由|组)|(翻译|校对|时间轴|时间轴|压制|制作|听译|后期|总监|特效)[:：]|人人影视|YYeTs|伊甸园|"
    r"(?i:subtitles? by|sync(ed)? (and|&) correct|opensubtitles|addic7ed|transcript by|www\.[a-z])"
)


def without_speakers(en: pa.Array, zh: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both sides without speaker marks; a Chinese "name:" goes only where the English side had one too."""
    named = pc.match_substring_regex(en, NAME)
    en = pc.replace_substring_regex(en, NAME, "")
    zh = pc.if_else(named, pc.replace_substring_regex(zh, CHINESE_NAME, ""), zh)
    return (
        pc.replace_substring_regex(en, DASH, r"\1 "),
        pc.replace_substring_regex(zh, DASH, r"\1"),
    )


def is_credit(en: pa.Array, zh: pa.Array) -> pa.Array:
    """True where either side is a subtitle group's credit or a bare sound note."""
    credit = pc.or_(pc.match_substring_regex(en, CREDIT), pc.match_substring_regex(zh, CREDIT))
    return pc.or_(credit, pc.or_(pc.match_substring_regex(en, SOUND), pc.match_substring_regex(zh, SOUND)))
