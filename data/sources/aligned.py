"""Texts that belong together by place: captions of an image, lines of two files (Moses), turns of lines in one file."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from data.cli import UserError
from data.sources.base import Pair, PairSource, Part, Source, TwoFiles, pair_batches, raw_batch
from data.sources.benchmark_files import image_id, read_benchmark_rows
from data.sources.compressed import COMPRESSED
from data.sources.io import Lines, Span, read_lines

HAN = re.compile(r"[\u3400-\u9fff]")
CAPTION = re.compile(r"^(?P<image>[^\t,#]+?)(?:#(?:(?:zh|en)[a-z]*#)?(?P<index>\d+))?(?:\t|,| (?=\S))(?P<text>.*)$")


@dataclass(frozen=True)
class CaptionLine:
    """One caption of an image; `index` tells the captions of an image apart, `image` is "" where a line has none."""

    image: str
    key: str  # one name for what publishers call differently: val2014/COCO_val2014_000000000139.jpg, 000000000139.jpg
    index: int
    text: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Captions(TwoFiles):
    """Captions of both languages by image: `IMAGE#INDEX<tab>caption` lines (Flickr30K, Flickr8k-CN `#zhc#`, COCO-CN)
    or JSON with COCO's `images` and `annotations`.

    Captions with the same image and index pair; with `by_index: false` the n-th of an image pairs with the n-th.
    """  # fmt: skip

    by_index: bool = True

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a caption; `line` is the line of the English file, or of a lone Chinese caption."""
        en, zh = (list(self._captions(root, path)) for path in self.paths)
        yield from pair_batches(self._pairs(en, zh), 0)

    def _pairs(self, en: list[CaptionLine], zh: list[CaptionLine]) -> Iterator[Pair]:
        chinese = {(caption.key, caption.index): caption for caption in zh if caption.image}
        used = set[int]()
        for caption in en:
            other = chinese.get((caption.key, caption.index))
            if not caption.image:
                yield Pair(caption.text, "", caption.line, fault="columns")
            elif other is None:
                yield Pair(caption.text, "", caption.line, image=caption.image, fault="one_sided")
            else:
                used.add(other.line)
                yield Pair(caption.text, other.text, caption.line, image=caption.image)
        for caption in zh:
            if caption.line not in used:
                fault = "one_sided" if caption.image else "columns"
                yield Pair("", caption.text, caption.line, image=caption.image, fault=fault)

    def _captions(self, root: str, path: str) -> Iterator[CaptionLine]:
        """Every line of `path`, or every annotation of a COCO document, whose numbers count as lines."""
        seen: defaultdict[str, int] = defaultdict(int)
        is_coco = COMPRESSED.sub("", path.lower()).endswith(".json")
        for image, index, text, number in _coco(root, path) if is_coco else _lines(root, path, self.encoding):
            key = image_id(image) if image else ""
            yield CaptionLine(image, key, seen[key] if index is None or not self.by_index else index, text, number)
            seen[key] += 1


def _coco(root: str, path: str) -> Iterator[tuple[str, int | None, str, int]]:
    rows = (row for row in read_benchmark_rows(root, path) if row.text is not None)
    for number, row in enumerate(rows, 1):
        yield "".join(row.images[:1]), None, row.text or "", number


def _lines(root: str, path: str, encoding: str) -> Iterator[tuple[str, int | None, str, int]]:
    for lines in read_lines(root, path, encoding):
        for number, line in enumerate(lines.text.to_pylist(), lines.first):
            if match := CAPTION.match(line):
                index = int(match["index"]) if match["index"] else None
                yield match["image"].strip(), index, match["text"].strip(), number
            else:
                yield "", None, line, number


@dataclass(frozen=True, kw_only=True)
class Moses(Source):
    """Files of equal length; the n-th line of `en` goes with the n-th line of `zh` (and of `image`)."""

    en: tuple[str, ...]
    zh: tuple[str, ...]
    image: tuple[str, ...] = ()
    reads_spans: ClassVar[bool] = True

    @property
    def paths(self) -> tuple[str, ...]:
        """English files first (a row's `file` names its English file), then Chinese, then image ids."""
        return self.en + self.zh + self.image

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield aligned batches; files of different length are the user's error."""
        return self.read_part(root, Part(0, len(self.file_groups)))

    @property
    def file_groups(self) -> list[tuple[str, ...]]:
        """Files that belong side by side."""
        if len(self.en) != len(self.zh) or (self.image and len(self.image) != len(self.en)):
            raise UserError(
                f"source {self.name}: en has {len(self.en)} files, zh {len(self.zh)}, image {len(self.image)}; "
                "they pair by position"
            )
        return list(zip(*filter(None, (self.en, self.zh, self.image)), strict=True))

    def read_part(self, root: str, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the aligned batches of some files, or of some of their lines."""
        for index in range(part.start, part.stop):
            for first, texts in align_lines(root, self.file_groups[index], self.encoding, part.spans):
                yield raw_batch(
                    texts[0],
                    texts[1],
                    index,
                    Lines(texts[0], first).numbers(),
                    image=texts[2] if self.image else None,
                )


def align_lines(
    root: str, paths: tuple[str, ...], encoding: str, spans: tuple[Span, ...]
) -> Iterator[tuple[int, list[pa.Array]]]:
    """Yield (first line number, equally long arrays), one array a path; UserError if a file ends early."""
    each_span = spans or (None,) * len(paths)
    streams = [read_lines(root, path, encoding, span) for path, span in zip(paths, each_span, strict=True)]
    pending, done = [pa.array([], pa.large_string()) for _ in paths], spans[0].line - 1 if spans else 0
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


@dataclass(frozen=True, kw_only=True)
class Interleaved(PairSource):
    """A line of English, then a line of Chinese, or the other way round; blank lines between them do not count.

    A line with Han characters is Chinese; one without a partner of the other language is the reject `one_sided`.
    """

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair of lines; `line` is the first line of the two."""
        waiting: tuple[str, int] | None = None
        for lines in read_lines(root, path, self.encoding):
            for number, line in enumerate(map(str.strip, lines.text.to_pylist()), lines.first):
                if not line:
                    continue
                if waiting and bool(HAN.search(waiting[0])) != bool(HAN.search(line)):
                    en, zh = sorted((waiting[0], line), key=lambda text: bool(HAN.search(text)))
                    yield Pair(en, zh, waiting[1])
                    waiting = None
                    continue
                if waiting:
                    yield _lone_line(*waiting)
                waiting = (line, number)
        if waiting:
            yield _lone_line(*waiting)


def _lone_line(text: str, line: int) -> Pair:
    is_chinese = HAN.search(text) is not None
    return Pair("" if is_chinese else text, text if is_chinese else "", line, fault="one_sided")
