"""What every source says of itself, and what its reader owes: batches, never a silent skip."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import pyarrow as pa

from data.schema import TEXT, raw_batch

PAIR_BATCH_ROWS = 65536  # rows a batch of the plain-Python readers

Domain = Literal["caption", "general", "subtitle", "encyclopedia", "news", "poetry", "prompt", "dictionary"]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A corpus by its name, domain and licence, with its cleaning policy."""

    name: str
    domain: Domain
    license: str
    simplify: bool = True  # traditional characters become simplified ones (OpenCC t2s)
    speakers: bool = False  # strip speaker names, dialogue dashes and subtitle credits
    join_lines: bool = False  # subtitles: join lines of one sentence
    spaces: Literal["remove", "comma", "keep"] = "remove"  # what becomes of a space between two Chinese characters
    encoding: str = "utf-8"
    machine: str = ""  # the model that made one side; rows are then marked machine:NAME in the corpus's source column

    @property
    def source_label(self) -> str:
        """What the corpus's source column says."""
        return f"machine:{self.name}" if self.machine else self.name

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Every file that is read, as the config wrote it; `file` in a raw row indexes this."""

    @abstractmethod
    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield raw batches in file order; raise UserError for what the user can mend."""


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """A source whose files hold both languages each, and are read one after the other."""

    files: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in order."""
        return self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield the batches of every file."""
        for index, path in enumerate(self.files):
            yield from self.read_file(root, path, index)

    @abstractmethod
    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Yield the batches of one file, whose number is `index`."""


@dataclass(frozen=True, kw_only=True)
class PairSource(FileSource):
    """Files of a small odd format, read in plain Python."""

    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Group the pairs of one file."""
        yield from pair_batches(self.pairs(root, path), index)

    @abstractmethod
    def pairs(self, root: str, path: str) -> "Iterator[Pair]":
        """Yield the pairs of one file."""


@dataclass(frozen=True, kw_only=True)
class TwoFiles(Source):
    """One file a language."""

    en: str
    zh: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The English file, then the Chinese."""
        return (self.en, self.zh)


@dataclass(frozen=True)
class Pair:
    """One pair of a small odd format, read in plain Python."""

    en: str
    zh: str
    line: int
    sub: int = 0
    image: str = ""
    fault: str = ""


def pair_batches(pairs: Iterator[Pair], file: int) -> Iterator[pa.RecordBatch]:
    """Group `pairs` of one file into raw batches."""
    while group := list(islice(pairs, PAIR_BATCH_ROWS)):
        yield raw_batch(
            _text([p.en for p in group]),
            _text([p.zh for p in group]),
            file,
            pa.array([p.line for p in group], pa.int64()),
            _text([p.image for p in group]),
            pa.array([p.sub for p in group], pa.int32()),
            _text([p.fault for p in group]),
        )


def _text(values: Sequence[str]) -> pa.Array:
    """An Arrow column; a lone surrogate (possible in JSON escapes) becomes U+FFFD."""
    try:
        return pa.array(values, TEXT)
    except UnicodeEncodeError:
        return pa.array([v.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for v in values], TEXT)
