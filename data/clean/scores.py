"""Scores of pairs: numbers that say how odd a row is, apart from what is then accepted.

Words that the user does not want in a corpus, such as a NSFW list: given as a file, none by default.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from data.clean.codepoints import Text, encode
from data.clean.decontaminate import Index, overlap
from data.clean.dedup import HASHES, signatures
from data.clean.hashing import folded, row_keys
from data.clean.heuristics import Counts, counted, disagreement, endings, periodic
from data.clean.language import cantonese, foreignness
from data.cli import UserError
from data.sources.io import read_text

HAN = re.compile(r"[\u3400-\u9fff]")
AT_ONCE = 500  # words a pattern: RE2 refuses very large ones


@dataclass(frozen=True)
class WordList:
    """Patterns that no English side, and no Chinese side, may hold."""

    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()


def load_words(root: str, path: str) -> WordList:
    """A word or phrase a line; Chinese ones are found anywhere, others as whole words in any case. `#` comments."""
    lines = (line.strip() for line in read_text(root, path, "utf-8").splitlines())
    words = [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]
    if not words:
        raise UserError(f"{path}: no word in it; write one a line, or drop `banned_words`")
    zh, en = ([re.escape(w) for w in words if bool(HAN.search(w)) == han] for han in (True, False))
    return WordList(_patterns(en, r"(?i)\b(?:{})\b"), _patterns(zh, "(?:{})"))


def _patterns(words: list[str], around: str) -> tuple[str, ...]:
    return tuple(around.format("|".join(words[at : at + AT_ONCE])) for at in range(0, len(words), AT_ONCE))


def banned(en: Text, zh: Text, words: WordList) -> npt.NDArray[np.float32]:
    """1 where either side holds a word of the list, [rows]."""
    found = np.zeros(en.rows, bool)
    for text, patterns in ((en, words.en), (zh, words.zh)):
        column = encode(text) if patterns else None
        for pattern in patterns:
            found |= np.asarray(pc.match_substring_regex(column, pattern))
    return found.astype(np.float32)


@dataclass(frozen=True)
class Yardstick:
    """What rows are measured against besides themselves."""

    indices: tuple[Index, Index]  # English and Chinese benchmark texts
    sha256: str  # of the files that they come from
    near: bool = True  # whether signatures for near duplicates are wanted
    banned: WordList = field(default_factory=WordList)


Floats = npt.NDArray[np.float32]
Count = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
ENGLISH_A_CHINESE = 3.2  # characters of English that say one character of Chinese, over all domains
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
    "ending",
    "banned",
)


def scored(en: Text, zh: Text, yardstick: Yardstick) -> dict[str, npt.NDArray[np.generic]]:
    """Every score, the keys `en_key`, `zh_key` and the `signature` [rows, hashes], by name; all [rows]."""
    left, right = counted(en), counted(zh)
    en_fold, zh_fold = folded(en), folded(zh)
    en_key, zh_key = row_keys(en_fold), row_keys(zh_fold)
    en_overlap, zh_overlap = (
        overlap(text, index) for text, index in zip((en_fold, zh_fold), yardstick.indices, strict=True)
    )
    return {
        "en_chars": _f(en.lengths),
        "zh_chars": _f(zh.lengths),
        "log_ratio": log_ratio(en.lengths, zh.lengths, right.han),
        "en_latin": latin_share(left),
        "zh_han": han_share(right),
        "zh_kana": share(right.kana, right.kana + right.han),
        "run": _f(np.maximum(left.run, right.run)),
        "period": np.maximum(periodic(en_fold), periodic(zh_fold)),
        "brackets": _f(left.unbalanced + right.unbalanced),
        "numbers": disagreement(en, zh),
        "identical": _f(en_key == zh_key),
        "marks": np.maximum(share(left.marks, left.visible), share(right.marks, right.visible)),
        "foreign": foreignness(en),
        "cantonese": cantonese(zh),
        "en_held": en_overlap.held,
        "en_alike": en_overlap.alike,
        "zh_held": zh_overlap.held,
        "zh_alike": zh_overlap.alike,
        "ending": endings(en, zh),
        "banned": banned(en, zh, yardstick.banned),
        "en_key": en_key,
        "zh_key": zh_key,
        "signature": signatures(en_fold, zh_fold) if yardstick.near else np.zeros((en.rows, HASHES), np.uint8),
    }


def _f(values: npt.NDArray[np.generic]) -> Floats:
    return values.astype(np.float32)


def share(part: Count, whole: Count) -> Floats:
    """`part` of `whole`, 0 where there is no `whole`, [rows]."""
    return _f(part / np.maximum(whole, 1))


def latin_share(en: Counts) -> Floats:
    """Share of Latin letters among letters; 1 for a row of digits alone, 0 for one of marks alone."""
    letters = en.han + en.latin + en.kana + en.other
    return np.where(letters > 0, share(en.latin, letters), _f(en.digits > 0))


def han_share(zh: Counts) -> Floats:
    """Share of Han characters among Han characters and words of other scripts; a foreign name counts as one."""
    return share(zh.han, zh.han + zh.words)


def log_ratio(en: Lengths, zh: Lengths, han: Count) -> Floats:
    """ln(English length / expected English length), smoothed so that short rows may vary."""
    expected = ENGLISH_A_CHINESE * han + (zh - han)
    return _f(np.log((en + 8.0) / (expected + 8.0)))
