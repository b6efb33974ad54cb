"""Dictionaries: CC-CEDICT as short glosses, as a prompt names a thing, and Open Multilingual WordNet."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.cli import UserError
from data.sources.base import Pair, PairSource, TwoFiles, pair_batches
from data.sources.io import read_lines

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
FIRST_GLOSS_END = re.compile(r"; |, (?:also|abbr|see|cf|lit|fig|same|usually|esp\.|e\.g\.|i\.e\.)")
TAIL = re.compile(r"(?:,| \b(?:in|of|near|from|at|also|abbr\.|see|fig\.|lit\.|cf\.?))*[\s,;:.]*$")


@dataclass(frozen=True, kw_only=True)
class Cedict(PairSource):
    """CC-CEDICT, one pair a sense; cross references, classifiers and surnames are the reject `gloss`."""

    senses: int = 12  # of an entry; later ones are the reject `rare_sense`
    longest: int = 80  # characters of a gloss

    @property
    def senses_per_entry(self) -> int:
        """As many as the config takes of an entry."""
        return self.senses

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
    sense = _figurative(sense.removeprefix("fig. "))
    gloss = _strip_parentheses(sense)
    if not gloss or DROPPED_SENSES.match(sense) or DROPPED_SENSES.match(gloss):
        return ""
    gloss = FIRST_GLOSS_END.split(gloss)[0]
    if reference := HAN_REFERENCE.search(gloss):
        gloss = gloss[: reference.start()]
        if not gloss.strip(" ,;:") or re.search(r"\b(?:of|for|see|to|with|in|as|from|by)\s*$", gloss):
            return ""
    return re.sub(r"(?:,\s*)+,", ",", TAIL.sub("", gloss)).strip(" ,;:")


def _figurative(sense: str) -> str:
    """The figurative meaning where a sense has a literal one too."""
    if " fig. " in sense or (sense.startswith("lit. ") and "fig. " in sense):
        return sense.split("fig. ")[-1]
    return sense.removeprefix("lit. ")


def _strip_parentheses(sense: str) -> str:
    """`sense` without bracketed asides, nested ones too."""
    while (shorter := PARENTHESES.sub("", sense)) != sense:
        sense = shorter
    return " ".join(sense.split())


@dataclass(frozen=True, kw_only=True)
class Omw(TwoFiles):
    """Open Multilingual WordNet tabs: `synset<tab>lang:lemma<tab>word`; words of one synset pair, each with each."""

    words: int = 3  # of a synset, on each side; more are the reject `rare_sense`

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a combination; `line` is the line of the English word, or of a Chinese one without it."""
        yield from pair_batches(self._pairs(list(self._lemmas(root, self.en)), list(self._lemmas(root, self.zh))), 0)

    def _pairs(self, en: list["Lemma"], zh: list["Lemma"]) -> Iterator[Pair]:
        chinese: defaultdict[str, list[str]] = defaultdict(list)
        for lemma in zh:
            chinese[lemma.synset].append(lemma.word.replace("+的", "的").replace("_", ""))
        ranks, english = defaultdict[str, int](int), {lemma.synset for lemma in en}
        for lemma in en:
            ranks[lemma.synset] += 1
            others, word = chinese.get(lemma.synset, []), lemma.word.replace("_", " ")
            if not others or ranks[lemma.synset] > self.words:
                yield Pair(word, "", lemma.line, fault="rare_sense" if others else "one_sided")
                continue
            for sub, other in enumerate(others, 1):
                yield Pair(word, other, lemma.line, sub=sub, fault="" if sub <= self.words else "rare_sense")
        for lemma in zh:
            if lemma.synset not in english:
                yield Pair("", lemma.word, lemma.line, fault="one_sided")

    def _lemmas(self, root: str, path: str) -> Iterator["Lemma"]:
        any_lemma = False
        for lines in read_lines(root, path, self.encoding):
            for number, line in enumerate(lines.text.to_pylist(), lines.first):
                cells = line.split("\t")
                if len(cells) >= 3 and cells[1].endswith("lemma"):
                    any_lemma = True
                    yield Lemma(cells[0], cells[2], number)
        if not any_lemma:
            raise UserError(f"{path}: no line `synset<tab>lang:lemma<tab>word`; is this an OMW tab file?")


@dataclass(frozen=True)
class Lemma:
    """One word of a synset."""

    synset: str
    word: str
    line: int
