"""Two one-sided files that share a key: captions by image, WordNets by synset, Wikipedia titles by language link."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.command import UserError
from data.sources.lines import read_lines
from data.sources.source import Pair, Source, TwoFiles, batches

CAPTION = re.compile(r"^(?P<image>[^\t,#]+?)(?:#(?:zh[a-z]*#|en#)?(?P<index>\d+))?(?:\t|,| (?=\S))(?P<text>.*)$")
INSERT = re.compile(r"\((\d+),'((?:[^'\\]|\\.)*)','((?:[^'\\]|\\.)*)'\)")
PAGE = re.compile(r"\((\d+),0,'((?:[^'\\]|\\.)*)',")


@dataclass(frozen=True, kw_only=True)
class Captions(TwoFiles):
    """Flickr30K-CN, COCO-CN and Flickr8k-CN text files: `IMAGE#INDEX<tab>caption` a line, in each language.

    Captions with the same image and index pair; with `by_index: false` the n-th of an image pairs with the n-th.
    """

    by_index: bool = True

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a caption; `line` is the line of the English file."""
        zh = {key: text for key, text, _ in self._keyed(root, self.zh)}
        yield from batches(self._pairs(root, zh), 0)

    def _pairs(self, root: str, zh: dict[tuple[str, int], str]) -> Iterator[Pair]:
        for key, text, line in self._keyed(root, self.en):
            other = zh.get(key)
            if not key[0]:
                yield Pair(text, "", line, fault="columns")
            else:
                yield Pair(text, other or "", line, image=key[0], fault="one_sided" if other is None else "")

    def _keyed(self, root: str, path: str) -> Iterator[tuple[tuple[str, int], str, int]]:
        seen: defaultdict[str, int] = defaultdict(int)
        for lines in read_lines(root, path, self.encoding):
            for number, line in enumerate(lines.text.to_pylist(), lines.first):
                match = CAPTION.match(line)
                if match is None:
                    yield ("", number), line, number
                    continue
                image = match["image"].strip()
                index = int(match["index"]) if self.by_index and match["index"] else seen[image]
                seen[image] += 1
                yield (image, index), match["text"].strip(), number


@dataclass(frozen=True, kw_only=True)
class Omw(TwoFiles):
    """Open Multilingual WordNet tabs: `synset<tab>lang:lemma<tab>word`; words of one synset pair, each with each."""

    words: int = 3  # of a synset, on each side

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a combination; `line` is the line of the English word."""
        chinese: defaultdict[str, list[str]] = defaultdict(list)
        for synset, word, _ in _lemmas(root, self.zh, self.encoding):
            chinese[synset].append(word.replace("+的", "的").replace("_", ""))
        yield from batches(self._pairs(root, chinese), 0)

    def _pairs(self, root: str, chinese: dict[str, list[str]]) -> Iterator[Pair]:
        given: defaultdict[str, int] = defaultdict(int)
        for synset, word, line in _lemmas(root, self.en, self.encoding):
            given[synset] += 1
            for sub, other in enumerate(chinese.get(synset, [])[: self.words], 1):
                if given[synset] <= self.words:
                    yield Pair(word.replace("_", " "), other, line, sub=sub)


def _lemmas(root: str, path: str, encoding: str) -> Iterator[tuple[str, str, int]]:
    found = False
    for lines in read_lines(root, path, encoding):
        for number, line in enumerate(lines.text.to_pylist(), lines.first):
            cells = line.split("\t")
            if len(cells) >= 3 and cells[1].endswith("lemma"):
                found = True
                yield cells[0], cells[2], number
    if not found:
        raise UserError(f"{path}: no line `synset<tab>lang:lemma<tab>word`; is this an OMW tab file?")


@dataclass(frozen=True, kw_only=True)
class WikipediaTitles(Source):
    """enwiki's `langlinks.sql` and `page.sql` dumps: titles of articles that both Wikipedias have."""

    langlinks: str
    page: str
    language: str = "zh"

    @property
    def paths(self) -> tuple[str, ...]:
        """The links, then the pages."""
        return (self.langlinks, self.page)

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a linked article; `line` is its page id."""
        links = dict[str, str]()
        for lines in read_lines(root, self.langlinks, self.encoding):
            for line in lines.text.to_pylist():
                for match in INSERT.finditer(line):
                    if match[2] == self.language:
                        links[match[1]] = _title(match[3])
        if not links:
            raise UserError(
                f"{self.langlinks}: no link to language {self.language!r}; is this enwiki's langlinks dump?"
            )
        yield from batches(self._pairs(root, links), 0)

    def _pairs(self, root: str, links: dict[str, str]) -> Iterator[Pair]:
        for lines in read_lines(root, self.page, self.encoding):
            for line in lines.text.to_pylist():
                for match in PAGE.finditer(line):
                    zh = links.get(match[1])
                    if zh is not None:
                        yield Pair(_title(match[2]), zh, int(match[1]))


def _title(written: str) -> str:
    """A title as readers see it: no escapes, no underscores, no "(disambiguation)"."""
    plain = re.sub(r"\\(.)", r"\1", written).replace("_", " ")
    return re.sub(r" \([^()]*\)$", "", plain)
