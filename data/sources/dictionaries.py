"""CC-CEDICT: one short gloss a sense, as a prompt would name the thing."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.cli import UserError
from data.sources.base import Pair, PairSource, TwoFiles, pair_batches
from data.sources.lines import read_lines

ENTRY = re.compile(r"(\S+) (\S+) \[([^\]]*)\] /(.*)/\s*$")
DROPPED_SENSES = re.compile(
    r"^(?:CL:|see |see also |variant of|old variant|Japanese variant|erhua variant|also written|also pr\.|also called|"
    r"abbr\. |surname |Surname |used in|Taiwan pr\.|same as|equivalent (?:to|of)|idiom|contraction of|"
    r"unofficial variant|\(?(?:particle|grammatical|classifier|measure word|interj|onom|prefix|suffix|pronoun|modal)|"
    r"\(bound form\)$|lit\. |component |radical |Kangxi |one of the |two-character |grammar |phonetic|pr\. |"
    r"Mandarin equivalent|bound form|literary|Tw$|coll\.|old$|dialect|slang$)"
)
PARENTHESES = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
HAN_REFERENCE = re.compile(r"[\u3400-\u9fff\U00020000-\U000323af]+(?:[|｜][\u3400-\u9fff\U00020000-\U000323af]+)?")
TAIL = re.compile(r"(?:,| \b(?:in|of|near|from|at|also|abbr\.|see|fig\.|lit\.|cf\.?))*[\s,;:.]*$")


@dataclass(frozen=True, kw_only=True)
class Cedict(PairSource):
    """`senses` and `glosses` bound what one entry gives; cross references, classifiers and surnames are rejects."""

    senses: int = 12
    longest: int = 80  # characters of a gloss

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a gloss; comments are the reject `comment`."""
        for lines in read_lines(root, path, self.encoding):
            for number, line in enumerate(lines.text.to_pylist(), lines.first):
                yield from entry_pairs(line, number, self.senses, self.longest)


def entry_pairs(line: str, number: int, senses: int, longest: int) -> Iterator[Pair]:
    """The pairs of one line of the dictionary."""
    if line.startswith("#") or not line.strip():
        yield Pair("", "", number, fault="comment")
        return
    match = ENTRY.match(line)
    if match is None:
        yield Pair(line, "", number, fault="columns")
        return
    chinese, senses_used = match.group(2), 0
    for sub, sense in enumerate(match.group(4).split("/"), 1):
        text = clean_gloss(sense)
        if not text or len(text) > longest:
            yield Pair(sense, chinese, number, sub=sub, fault="gloss")
        elif senses_used == senses:
            yield Pair(sense, chinese, number, sub=sub, fault="rare_sense")
        else:
            senses_used += 1
            yield Pair(text, chinese, number, sub=sub)


def clean_gloss(sense: str) -> str:
    """A sense without asides, references and pinyin; "" where nothing is left that names the thing."""
    sense = sense.strip().split(", as opposed to")[0]
    if re.fullmatch(r"\([^()]*\)", sense):
        sense = sense[1:-1]  # nothing but an aside
    sense = sense.removeprefix("fig. ")
    literal = sense.startswith("lit. ")
    if literal or " fig. " in sense:  # the figurative meaning is what is meant
        sense = sense.split("fig. ")[-1] if "fig. " in sense else sense.removeprefix("lit. ")
    if DROPPED_SENSES.match(sense) or DROPPED_SENSES.match(previous := _strip_parentheses(sense)) or not previous:
        return ""
    sense = re.split(r"; |, (?:also|abbr|see|cf|lit|fig|same|usually|esp\.|e\.g\.|i\.e\.)", previous)[0]
    if HAN_REFERENCE.search(sense):
        sense = sense.split(HAN_REFERENCE.search(sense).group(0))[0]  # type: ignore[union-attr]  # searched just above
        if not sense.strip(" ,;:") or re.search(r"\b(?:of|for|see|to|with|in|as|from|by)\s*$", sense):
            return ""
    return re.sub(r"(?:,\s*)+,", ",", TAIL.sub("", sense)).strip(" ,;:")


def _strip_parentheses(sense: str) -> str:
    """`sense` without bracketed asides, nested ones too."""
    while (shorter := PARENTHESES.sub("", sense)) != sense:
        sense = shorter
    return " ".join(sense.split())


@dataclass(frozen=True, kw_only=True)
class Omw(TwoFiles):
    """Open Multilingual WordNet tabs: `synset<tab>lang:lemma<tab>word`; words of one synset pair, each with each."""

    words: int = 3  # of a synset, on each side

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a combination; `line` is the line of the English word."""
        chinese: defaultdict[str, list[str]] = defaultdict(list)
        for synset, word, _ in _lemmas(root, self.zh, self.encoding):
            chinese[synset].append(word.replace("+的", "的").replace("_", ""))
        yield from pair_batches(self._pairs(root, chinese), 0)

    def _pairs(self, root: str, chinese: dict[str, list[str]]) -> Iterator[Pair]:
        words_used: defaultdict[str, int] = defaultdict(int)
        for synset, word, line in _lemmas(root, self.en, self.encoding):
            words_used[synset] += 1
            for sub, other in enumerate(chinese.get(synset, [])[: self.words], 1):
                if words_used[synset] <= self.words:
                    yield Pair(word.replace("_", " "), other, line, sub=sub)


def _lemmas(root: str, path: str, encoding: str) -> Iterator[tuple[str, str, int]]:
    any_lemma = False
    for lines in read_lines(root, path, encoding):
        for number, line in enumerate(lines.text.to_pylist(), lines.first):
            cells = line.split("\t")
            if len(cells) >= 3 and cells[1].endswith("lemma"):
                any_lemma = True
                yield cells[0], cells[2], number
    if not any_lemma:
        raise UserError(f"{path}: no line `synset<tab>lang:lemma<tab>word`; is this an OMW tab file?")
