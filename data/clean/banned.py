"""Words that the user does not want in a corpus, such as a NSFW list: given as a file, none by default."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from data.clean.codepoints import Text, encode
from data.command import UserError
from data.sources.files import read_text

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
