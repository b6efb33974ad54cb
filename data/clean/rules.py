"""Thresholds on scores: which rows are accepted, and the reason why the others are not."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a row may be; one field a rule, in the order in which they are asked."""

    min_en_chars: int = 1
    min_zh_chars: int = 1
    max_en_chars: int = 480  # CLIP reads 77 tokens, about 330 characters
    max_zh_chars: int = 180
    min_en_latin: float = 0.7  # of the letters
    min_zh_han: float = 0.3  # of Han characters and foreign words; Chinese text may name things in Latin letters
    max_zh_kana: float = 0.1
    max_run: int = 9  # one character repeated
    max_period: float = 0.8
    max_marks: float = 0.5  # punctuation and symbols among all but spaces
    max_ratio_deviations: float = 5.0  # |log length ratio - its median in the domain|, in robust deviations
    max_brackets: int = 2  # unbalanced brackets
    numbers: bool = True  # reject rows whose numbers disagree
    max_foreign: float = 0.15  # foreign less English function words, as a share of words
    max_cantonese: int = 0  # characters that only written Cantonese has
    max_banned: int = 0  # 1: keep rows that hold a word of the recipe's `banned_words` all the same
    max_ending: float = 1.0  # 1: anything; 0.5: no question beside a statement; 0: both sides end alike
    max_benchmark_held: float = 0.75  # of a benchmark text's n-grams in the row, on either side
    max_benchmark_alike: float = 0.6  # n-gram similarity to a benchmark text, on either side
    near_duplicate: float = 0.85  # estimated similarity to an earlier pair; above 1: off
    min_similarity: float = -1.0  # cosine of the sides' sentence vectors; -1: not measured
    max_shift: float = 2.0  # how much better a neighbouring line may fit; 2: not measured
    shift_below: float = 0.45  # a pair at least this similar is never called shifted
    max_same_en: int = 8  # rows that may share an English side; the first in the order of the config stay
    max_same_zh: int = 8


def needs_similarity(limits: Limits) -> bool:
    """Whether these limits ask for sentence vectors."""
    return limits.min_similarity > -1 or limits.max_shift < 2


@dataclass(frozen=True)
class Rule:
    """One reject reason: rows where `badness` exceeds `limit`."""

    reason: str
    severity: Column  # float [rows]
    limit: float


def reject_rules(score_columns: dict[str, Column], limits: Limits) -> list[Rule]:
    """The rules in the order in which they are asked; the first that a row breaks is its reason."""
    score = {name: column.astype(np.float32) for name, column in score_columns.items() if not name.endswith("key")}
    return [
        Rule("en_empty", -score["en_chars"], -limits.min_en_chars + 0.5),
        Rule("zh_empty", -score["zh_chars"], -limits.min_zh_chars + 0.5),
        Rule("identical", score["identical"], 0.5),
        Rule("zh_script", -score["zh_han"], -limits.min_zh_han),
        Rule("zh_kana", score["zh_kana"], limits.max_zh_kana),
        Rule("en_script", -score["en_latin"], -limits.min_en_latin),
        Rule("marks", score["marks"], limits.max_marks),
        Rule("en_long", score["en_chars"], limits.max_en_chars),
        Rule("zh_long", score["zh_chars"], limits.max_zh_chars),
        Rule("run", score["run"], limits.max_run),
        Rule("repetition", score["period"], limits.max_period),
        Rule("brackets", score["brackets"], limits.max_brackets),
        Rule("en_language", score["foreign"], limits.max_foreign),
        Rule("zh_language", score["cantonese"], limits.max_cantonese),
        Rule("numbers", score["numbers"], 0.5 if limits.numbers else 2.0),
        Rule("banned_word", score["banned"], limits.max_banned + 0.5),
        Rule("ending", score["ending"], limits.max_ending),
        Rule("benchmark_overlap", np.maximum(score["en_held"], score["zh_held"]), limits.max_benchmark_held),
        Rule("benchmark_near", np.maximum(score["en_alike"], score["zh_alike"]), limits.max_benchmark_alike),
    ]
