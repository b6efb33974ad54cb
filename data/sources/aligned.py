"""Two one-sided files that share a key: captions by image, WordNets by synset.

Moses pairs: two files (or zip members) aligned by line, as OPUS publishes, with an optional file of image ids.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.cli import UserError
from data.schema import raw_batch
from data.sources.base import Pair, Source, TwoFiles, pair_batches
from data.sources.lines import Lines, read_lines

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
        yield from pair_batches(self._pairs(root, zh), 0)

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
class Moses(Source):
    """Files of equal length; the n-th line of `en` goes with the n-th line of `zh` (and of `image`)."""

    en: tuple[str, ...]
    zh: tuple[str, ...]
    image: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """English files first (a row's `file` names its English file), then Chinese, then image ids."""
        return self.en + self.zh + self.image

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield aligned batches; files of different length are the user's error."""
        if len(self.en) != len(self.zh) or (self.image and len(self.image) != len(self.en)):
            raise UserError(
                f"source {self.name}: en has {len(self.en)} files, zh {len(self.zh)}, image {len(self.image)}; "
                "they pair by position"
            )
        for index in range(len(self.en)):
            group = [files[index] for files in (self.en, self.zh, self.image) if files]
            for first, texts in align_lines(root, group, self.encoding):
                yield raw_batch(
                    texts[0],
                    texts[1],
                    index,
                    Lines(texts[0], first).numbers(),
                    image=texts[2] if self.image else None,
                )


def align_lines(root: str, paths: list[str], encoding: str) -> Iterator[tuple[int, list[pa.Array]]]:
    """Yield (first line number, equally long arrays), one array a path; UserError if a file ends early."""
    streams = [read_lines(root, path, encoding) for path in paths]
    pending = [pa.array([], pa.large_string()) for _ in paths]
    done = 0
    while True:
        for index, stream in enumerate(streams):
            if not len(pending[index]) and (lines := next(stream, None)) is not None:
                pending[index] = lines.text
        ready = min(len(text) for text in pending)
        if ready == 0:
            break
        yield done + 1, [text.slice(0, ready) for text in pending]
        pending = [text.slice(ready) for text in pending]
        done += ready
    if any(len(text) for text in pending):
        totals = [
            done + len(text) + sum(len(more.text) for more in stream)
            for text, stream in zip(pending, streams, strict=True)
        ]
        line_counts = ", ".join(f"{path} has {total} lines" for path, total in zip(paths, totals, strict=True))
        raise UserError(
            f"{line_counts}; they must be equally long: line {done + 1} has no partner, fetch the files again"
        )
