"""Scores of pairs: numbers that say how odd a row is, apart from what is then accepted."""

import numpy as np
import numpy.typing as npt

from data.clean.alphabet import DIGIT, HAN, KANA, LATIN, MARK, OTHER, among, flags
from data.clean.codepoints import Mask, Text, previous
from data.clean.contamination import Yardstick, overlap
from data.clean.keys import folded, row_keys
from data.clean.language import cantonese, foreignness
from data.clean.minhash import HASHES, signatures
from data.clean.numbers import disagreement

Floats = npt.NDArray[np.float32]
ENGLISH_A_CHINESE = 3.2  # characters of English that say one character of Chinese, over all domains
QUOTES = ".,\"'“”‘’《》「」"
BRACKETS: tuple[tuple[str, str], ...] = tuple(
    (pair[0], pair[1]) for pair in ("()", "[]", "{}", "（）", "【】", "《》", "「」", "“”")
)
SCORES = (
    "en_chars",
    "zh_chars",
    "log_ratio",
    "en_latin",
    "zh_han",
    "zh_kana",
    "run",
    "period",
    "brackets",
    "numbers",
    "identical",
    "marks",
    "foreign",
    "cantonese",
    "en_held",
    "en_alike",
    "zh_held",
    "zh_alike",
)


def scored(en: Text, zh: Text, yardstick: Yardstick) -> dict[str, npt.NDArray[np.generic]]:
    """Every score, the keys `en_key`, `zh_key` and the `signature` [rows, hashes], by name; all [rows]."""
    en_kind, zh_kind = flags()[en.points], flags()[zh.points]
    en_fold, zh_fold = folded(en), folded(zh)
    en_key, zh_key = row_keys(en_fold), row_keys(zh_fold)
    han = zh.total((zh_kind & HAN) != 0)
    en_overlap, zh_overlap = (
        overlap(text, index) for text, index in zip((en_fold, zh_fold), yardstick.indices, strict=True)
    )
    marks = [share(side, first_marks(side, kind), side.points != 32) for side, kind in ((en, en_kind), (zh, zh_kind))]
    return {
        "en_chars": _f(en.lengths),
        "zh_chars": _f(zh.lengths),
        "log_ratio": log_ratio(en, zh, han),
        "en_latin": latin_share(en, en_kind),
        "zh_han": han_share(zh, zh_kind),
        "zh_kana": share(zh, (zh_kind & KANA) != 0, (zh_kind & (HAN | KANA)) != 0),
        "run": np.maximum(longest_run(en), longest_run(zh)),
        "period": np.maximum(periodic(en_fold), periodic(zh_fold)),
        "brackets": _f(imbalance(en) + imbalance(zh)),
        "numbers": disagreement(en, zh),
        "identical": _f(en_key == zh_key),
        "marks": np.maximum(*marks),
        "foreign": foreignness(en),
        "cantonese": cantonese(zh),
        "en_held": en_overlap.held,
        "en_alike": en_overlap.alike,
        "zh_held": zh_overlap.held,
        "zh_alike": zh_overlap.alike,
        "en_key": en_key,
        "zh_key": zh_key,
        "signature": signatures(en_fold, zh_fold) if yardstick.near else np.zeros((en.rows, HASHES), np.uint8),
    }


def _f(values: npt.NDArray[np.generic]) -> Floats:
    return values.astype(np.float32)


def share(text: Text, part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> Floats:
    """Share of `part` among `whole` in every row; 0 where there is no `whole`."""
    total = text.total(whole)
    return _f(text.total(part & whole) / np.maximum(total, 1))


def first_marks(text: Text, kind: npt.NDArray[np.uint8]) -> Mask:
    """Punctuation and symbols but quotes, a run of one and the same mark counted once, [characters]."""
    again = (text.points == previous(text.points)) & ~text.firsts()
    mask: Mask = ((kind & MARK) != 0) & ~again & ~among(QUOTES)[text.points]
    return mask


def latin_share(text: Text, kind: npt.NDArray[np.uint8]) -> Floats:
    """Share of Latin letters among letters; 1 for a row of digits alone, 0 for one of marks alone."""
    result = share(text, (kind & LATIN) != 0, (kind & (HAN | LATIN | KANA | OTHER)) != 0)
    bare = text.total((kind & (HAN | LATIN | KANA | OTHER)) != 0) == 0
    result[bare] = (text.total((kind & DIGIT) != 0) > 0)[bare]
    return result


def han_share(text: Text, kind: npt.NDArray[np.uint8]) -> Floats:
    """Share of Han characters among Han characters and words of other scripts; a foreign name counts as one."""
    han, foreign = (kind & HAN) != 0, (kind & (LATIN | KANA | OTHER)) != 0
    words = foreign & (~previous(foreign) | text.firsts())
    return share(text, han, han | words)


def log_ratio(en: Text, zh: Text, han: npt.NDArray[np.int64]) -> Floats:
    """ln(English length / expected English length), smoothed so that short rows may vary."""
    expected = ENGLISH_A_CHINESE * han + (zh.lengths - han)
    return _f(np.log((en.lengths + 8.0) / (expected + 8.0)))


def longest_run(text: Text) -> Floats:
    """Length of the longest run of one character, digits apart."""
    points = text.points
    same = (points == previous(points)) & ~text.firsts() & ((flags()[points] & DIGIT) == 0)
    count = np.arange(len(points), dtype=np.int64)
    start = np.maximum.accumulate(np.where(same, 0, count)) if len(points) else count
    return _row_max(text, count - start + 1)


def _row_max(text: Text, values: npt.NDArray[np.int64]) -> Floats:
    result = np.zeros(text.rows, np.float32)
    filled = text.lengths > 0
    if filled.any():
        result[filled] = np.maximum.reduceat(values, text.starts[:-1][filled])
    return result


def periodic(text: Text) -> Floats:
    """Largest share, over periods of 1 to 8, of characters that equal the one a period before; rows under 24 are 0."""
    best = np.zeros(text.rows, np.float32)
    long = text.lengths >= 24
    if not long.any():
        return best
    part = text.keep(np.repeat(long, text.lengths))
    points, place = part.points, np.arange(len(part.points)) - np.repeat(part.starts[:-1], part.lengths)
    for period in range(1, 9):
        same = np.zeros(len(points), bool)
        same[period:] = points[period:] == points[:-period]
        same &= place >= period
        np.maximum(best, part.total(same) / np.maximum(part.lengths - period, 1), out=best, casting="unsafe")
    return best


def imbalance(text: Text) -> npt.NDArray[np.int64]:
    """Brackets and quotes that open without closing or the other way round, a row."""
    total = np.zeros(text.rows, np.int64)
    if not ((flags()[text.points] & MARK) != 0).any():
        return total
    for left, right in BRACKETS:
        step = (text.points == ord(left)).astype(np.int8) - (text.points == ord(right)).astype(np.int8)
        if step.any():
            total += np.abs(text.total(step))
    return total
