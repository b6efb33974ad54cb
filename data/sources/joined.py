"""Two one-sided files that share a key: captions by image, WordNets by synset."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.command import UserError
from data.sources.lines import read_lines
from data.sources.source import Pair, TwoFiles, batches

CAPTION = re.compile(r"^(?P<image>[^\t,#]+?)(?:#(?:zh[a-z]*#|en#)?(?P<index>\d+))?(?:\t|,| (?=\S))(?P<text>.*)$")


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
