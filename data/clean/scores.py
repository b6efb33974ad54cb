"""Scores of pairs: numbers that say how odd a row is, apart from what is then accepted."""

import numpy as np
import numpy.typing as npt

from data.clean.alphabet import DIGIT, HAN, KANA, LATIN, MARK, OTHER, flags
from data.clean.codepoints import Text, previous
from data.clean.keys import Keys, folded, row_keys

Floats = npt.NDArray[np.float32]
ENGLISH_A_CHINESE = 3.2  # characters of English that say one character of Chinese, over all domains
BRACKETS = ("()", "[]", "{}", "（）", "【】", "《》", "「」", "“”")
SCORES = (
    "en_chars", "zh_chars", "log_ratio", "en_latin", "zh_han", "zh_kana", "run", "period", "brackets",
    "digits", "letters", "identical", "marks",
)


def scored(en: Text, zh: Text) -> dict[str, Floats | Keys]:
    """Every score, and the keys `en_key`, `zh_key`, by name; all [rows]."""
    en_kind, zh_kind = flags()[en.points], flags()[zh.points]
    en_fold, zh_fold = folded(en), folded(zh)
    en_key, zh_key = row_keys(en_fold), row_keys(zh_fold)
    han = zh.total((zh_kind & HAN) != 0)
    table: dict[str, Floats | Keys] = {
        "en_chars": _f(en.lengths),
        "zh_chars": _f(zh.lengths),
        "log_ratio": log_ratio(en, zh, han),
        "en_latin": share(en, (en_kind & LATIN) != 0, (en_kind & (HAN | LATIN | KANA | OTHER)) != 0),
        "zh_han": share(zh, (zh_kind & HAN) != 0, (zh_kind & (HAN | LATIN | KANA | OTHER)) != 0),
        "zh_kana": share(zh, (zh_kind & KANA) != 0, (zh_kind & (HAN | KANA)) != 0),
        "run": np.maximum(longest_run(en), longest_run(zh)),
        "period": np.maximum(periodic(en_fold), periodic(zh_fold)),
        "brackets": _f(imbalance(en) + imbalance(zh)),
        "digits": disagreement(en, zh),
        "letters": _f(en.total((en_kind & (LATIN | OTHER)) != 0)),
        "identical": _f(en_key == zh_key),
    }
    en_marks = share(en, (en_kind & (MARK | DIGIT)) != 0, en.points != 32)
    zh_marks = share(zh, (zh_kind & (MARK | DIGIT)) != 0, zh.points != 32)
    return table | {"marks": np.maximum(en_marks, zh_marks), "en_key": en_key, "zh_key": zh_key}


def _f(values: npt.NDArray[np.generic]) -> Floats:
    return values.astype(np.float32)


def share(text: Text, part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> Floats:
    """Share of `part` among `whole` in every row; 0 where there is no `whole`."""
    total = text.total(whole)
    return _f(text.total(part & whole) / np.maximum(total, 1))


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
    """Largest share, over periods of 1 to 8, of characters that equal the one a period before; rows under 12 are 0."""
    points, best = text.points, np.zeros(text.rows, np.float32)
    place = np.arange(len(points)) - np.repeat(text.starts[:-1], text.lengths)
    for period in range(1, 9):
        same = np.zeros(len(points), bool)
        same[period:] = points[period:] == points[:-period]
        count = text.total(same & (place >= period))
        np.maximum(best, count / np.maximum(text.lengths - period, 1), out=best, casting="unsafe")
    best[text.lengths < 12] = 0
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


def disagreement(en: Text, zh: Text) -> Floats:
    """1 where both sides write the same count of numbers in digits and the numbers differ, else 0."""
    (en_count, en_sum), (zh_count, zh_sum) = _numbers(en), _numbers(zh)
    return _f((en_count == zh_count) & (en_count > 0) & (en_sum != zh_sum))


def _numbers(text: Text) -> tuple[npt.NDArray[np.int64], Keys]:
    """How many runs of ASCII digits a row has, and the sum of the keys of these runs (order does not count)."""
    digit = (text.points >= 48) & (text.points <= 57)
    first = digit & (~previous(digit).astype(bool) | text.firsts())
    kept = text.keep(digit)
    heads = np.flatnonzero(first[digit])
    runs = Text(kept.points, np.append(heads, len(kept.points)).astype(np.int64))
    keys = row_keys(runs) if len(heads) else np.zeros(0, np.uint64)
    count = text.total(first)
    sums = np.zeros(len(keys) + 1, np.uint64)
    np.cumsum(keys, out=sums[1:])
    edge = np.concatenate([[0], np.cumsum(count)])
    return count, sums[edge[1:]] - sums[edge[:-1]]
