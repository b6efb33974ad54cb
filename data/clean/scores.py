"""Scores of pairs: numbers that measure how odd a row is, apart from the limits that then accept it.

A list of banned words, such as a NSFW list, is a file that the user gives; there is none by default.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from data.clean.characters import TextColumn, char_mask, encode, take_rows
from data.clean.decontaminate import BenchmarkIndex, Overlap, benchmark_overlap
from data.clean.hashing import NUM_HASHES, casefolded, hash_rows, minhash_signatures
from data.clean.heuristics import CharCounts, count_characters, ending_mismatch, numbers_disagree, periodicity
from data.clean.language import cantonese, foreign_word_share
from data.cli import UserError
from data.sources.io import read_text

Floats = npt.NDArray[np.float32]
Count = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
HAN_PATTERN = re.compile(r"[\u3400-\u9fff]")
WORDS_PER_PATTERN = 500  # RE2 rejects very large patterns
EN_CHARS_PER_ZH_CHAR = 3.2  # English characters that translate one Chinese character, over all domains
SCORES = (
    "en_chars", "zh_chars", "log_ratio", "en_latin", "zh_han", "zh_kana", "run", "period", "brackets", "numbers",
    "identical", "marks", "foreign", "cantonese", "en_held", "en_alike", "zh_held", "zh_alike", "ending", "banned",
)  # fmt: skip


@dataclass(frozen=True)
class BannedWords:
    """Patterns that no English side, and no Chinese side, may hold."""

    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()


def load_banned_words(root: str, path: str) -> BannedWords:
    """A word or phrase a line; Chinese ones are found anywhere, others as whole words in any case. `#` comments."""
    lines = (line.strip() for line in read_text(root, path, "utf-8").splitlines())
    words = [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]
    if not words:
        raise UserError(f"{path}: no word in it; write one a line, or drop `banned_words`")
    zh, en = ([re.escape(w) for w in words if bool(HAN_PATTERN.search(w)) == han] for han in (True, False))
    return BannedWords(_patterns(en, r"(?i)\b(?:{})\b"), _patterns(zh, "(?:{})"))


def _patterns(words: list[str], around: str) -> tuple[str, ...]:
    starts = range(0, len(words), WORDS_PER_PATTERN)
    return tuple(around.format("|".join(words[i : i + WORDS_PER_PATTERN])) for i in starts)


def contains_banned(en: TextColumn, zh: TextColumn, words: BannedWords) -> npt.NDArray[np.float32]:
    """1 where either side holds a word of the list, [rows]."""
    hits = np.zeros(en.rows, bool)
    for text, patterns in ((en, words.en), (zh, words.zh)):
        column = encode(text) if patterns else None
        for pattern in patterns:
            hits |= np.asarray(pc.match_substring_regex(column, pattern))
    return hits.astype(np.float32)


# What spreadsheets and data frames write for an empty cell.
NULL_WORD = (
    r"^\s*(?:None|NaN|nan|NAN|null|Null|NULL|N/A|n/a|#N/A|\(null\)|<(?i:unk|na|nan|null|none)>|\[(?i:unk)\]|\\N)\s*$"
)
NULL_LENGTH, NULL_STARTS = 16, "nN#(<[\\ "  # characters at most, and the first of them
NULL_TRANSLATION = (  # of a null word that is meant as a word
    r"^\s*(?:一个也没有|一个都没有|一点也没有|没有一个|没有人|没人|没有|无|毫无|空|空的|空值|零|不适用|不详|非数字|馕|奶奶|外婆)[。！]?\s*$"
)


def is_null(en: TextColumn, zh: TextColumn, is_dictionary: bool) -> npt.NDArray[np.bool_]:
    """True where a side of the raw pair is no text but the mark of an empty cell, [rows].

    A dictionary has an entry "null" (and "nan": 祖母, 馕), elsewhere a null word may stand beside its translation.
    """
    mask = np.zeros(en.rows, bool)
    rows = np.flatnonzero(_may_be_null(en) | _may_be_null(zh))
    if len(rows):
        left, right = encode(take_rows(en, rows)), encode(take_rows(zh, rows))
        null_en, null_zh = (pc.match_substring_regex(side, NULL_WORD) for side in (left, right))
        is_word = pc.or_(pc.match_substring_regex(right, NULL_TRANSLATION), is_dictionary)
        mask[rows] = np.asarray(pc.or_(null_zh, pc.and_not(null_en, is_word)))
    return mask


def _may_be_null(text: TextColumn) -> npt.NDArray[np.bool_]:
    lengths = text.lengths
    mask = (lengths > 0) & (lengths <= NULL_LENGTH)
    mask[mask] = char_mask(NULL_STARTS)[text.points[text.starts[:-1][mask]]]
    return mask


@dataclass(frozen=True)
class References:
    """What rows are compared with besides themselves."""

    indices: tuple[BenchmarkIndex, BenchmarkIndex] | None  # English and Chinese benchmark texts
    sha256: str  # of the files that they come from
    needs_signatures: bool = True  # of near duplicates
    banned: BannedWords = field(default_factory=BannedWords)


def score_pairs(en: TextColumn, zh: TextColumn, references: References) -> dict[str, npt.NDArray[np.generic]]:
    """Every score, the keys `en_key`, `zh_key` and the `signature` [rows, hashes], by name; all [rows]."""
    en_counts, zh_counts = count_characters(en), count_characters(zh)
    en_fold, zh_fold = casefolded(en), casefolded(zh)
    en_key, zh_key = hash_rows(en_fold), hash_rows(zh_fold)
    en_overlap = zh_overlap = Overlap(np.zeros(en.rows, np.float32), np.zeros(en.rows, np.float32))
    if references.indices:
        en_overlap, zh_overlap = map(benchmark_overlap, (en_fold, zh_fold), references.indices)
    if references.needs_signatures:
        signature = minhash_signatures(en_fold, zh_fold)
    else:
        signature = np.zeros((en.rows, NUM_HASHES), np.uint8)
    return {
        "en_chars": _float32(en.lengths),
        "zh_chars": _float32(zh.lengths),
        "log_ratio": log_ratio(en.lengths, zh.lengths, zh_counts.han),
        "en_latin": latin_share(en_counts),
        "zh_han": han_share(zh_counts),
        "zh_kana": share(zh_counts.kana, zh_counts.kana + zh_counts.han),
        "run": _float32(np.maximum(en_counts.char_run, zh_counts.char_run)),
        "period": np.maximum(periodicity(en_fold), periodicity(zh_fold)),
        "brackets": _float32(en_counts.unbalanced_brackets + zh_counts.unbalanced_brackets),
        "numbers": numbers_disagree(en, zh),
        "identical": _float32(en_key == zh_key),
        "marks": np.maximum(*(share(side.punctuation, side.visible) for side in (en_counts, zh_counts))),
        "foreign": foreign_word_share(en),
        "cantonese": cantonese(zh),
        "en_held": en_overlap.containment,
        "en_alike": en_overlap.jaccard,
        "zh_held": zh_overlap.containment,
        "zh_alike": zh_overlap.jaccard,
        "ending": ending_mismatch(en, zh),
        "banned": contains_banned(en, zh, references.banned),
        "en_key": en_key,
        "zh_key": zh_key,
        "signature": signature,
    }


def _float32(values: npt.NDArray[np.generic]) -> Floats:
    return values.astype(np.float32)


def share(part: Count, whole: Count) -> Floats:
    """`part` of `whole`, 0 where there is no `whole`, [rows]."""
    return _float32(part / np.maximum(whole, 1))


def latin_share(en: CharCounts) -> Floats:
    """Share of Latin letters among letters; 1 for a row of digits alone, 0 for one of marks alone."""
    letters = en.han + en.latin + en.kana + en.other
    return np.where(letters > 0, share(en.latin, letters), _float32(en.digits > 0))


def han_share(zh: CharCounts) -> Floats:
    """Share of Han characters among Han characters and words of other scripts; a foreign name counts as one."""
    return share(zh.han, zh.han + zh.words)


def log_ratio(en: Lengths, zh: Lengths, han: Count) -> Floats:
    """ln(English length / expected English length), smoothed so that short rows may vary."""
    expected = EN_CHARS_PER_ZH_CHAR * han + (zh - han)
    return _float32(np.log((en + 8.0) / (expected + 8.0)))
