"""Base classes of corpus readers: metadata and a batch iterator; bad rows are marked with a fault, never skipped."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from data.cli import UserError
from data.sources.cells import CellOptions, join_continued_lines
from data.sources.io import TEXT, Span, is_url

PAIR_BATCH_ROWS = 65536  # rows a batch of the plain-Python readers
Json = Any  # a parsed document of unknown shape
Domain = Literal["caption", "general", "subtitle", "encyclopedia", "news", "poetry", "prompt", "dictionary"]
RAW = pa.schema(
    [
        ("en", TEXT),
        ("zh", TEXT),
        ("image", TEXT),  # image id of a caption, "" elsewhere
        ("file", pa.int32()),  # index into the source's list of files
        ("line", pa.int64()),  # 1-based line (or record) of that file
        ("sub", pa.int32()),  # 0, or the 1-based part when one line gives several pairs
        ("fault", TEXT),  # "" or the reader's reject reason
    ]
)
"""What a source yields."""


@dataclass(frozen=True, kw_only=True)
class Source(CellOptions, ABC):
    """A corpus: its name, domain and licence, and how its texts are cleaned."""

    name: str
    domain: Domain
    license: str
    simplify: bool = True  # traditional characters become simplified ones (OpenCC t2s)
    speakers: bool = False  # strip speaker names, dialogue dashes and subtitle credits
    join_lines: bool = False  # subtitles: join lines of one sentence
    spaces: Literal["remove", "comma", "keep"] = "remove"  # what becomes of a space between two Chinese characters
    encoding: str = "utf-8"
    reads_spans: ClassVar[bool] = False  # each line gives its rows alone, so that a big file can be read in parts
    machine: str = ""  # the model that made one side; rows are then marked machine:NAME in the corpus's source column

    @property
    def source_label(self) -> str:
        """The value of the corpus's column `source`."""
        return f"machine:{self.name}" if self.machine else self.name

    @property
    def senses_per_entry(self) -> int:
        """Pairs that one entry of a dictionary may give with the same Chinese; `max_same_zh` never takes from them."""
        return 1

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Every file that is read, as the config names it; `file` of a raw row is an index into them."""

    def expanded(self, root: str) -> "Source":
        """The source with folders and patterns in its lists of files replaced by the files."""
        lists: dict[str, Any] = {
            name: expand_files(root, value) for name, value in vars(self).items() if isinstance(value, tuple)
        }
        return replace(self, **lists)

    @abstractmethod
    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield raw batches in file order; UserError for a file that is absent, damaged or of another format."""

    @property
    def file_groups(self) -> list[tuple[str, ...]]:
        """Files that can be read apart, those of one tuple side by side."""
        return [self.paths]

    def read_part(self, root: str, part: "Part") -> Iterator[pa.RecordBatch]:
        """Yield the raw batches of one part; all parts, one after the other, have those of the source."""
        return self.read(root)

    def batches(self, root: str, part: "Part | None" = None) -> Iterator[pa.RecordBatch]:
        """Raw batches as the cleaning takes them: cells rewritten, and with `join_lines` a sentence a row."""
        batches = self.read_part(root, part) if part else self.read(root)
        if any(vars(self)[option.name] != option.default for option in fields(CellOptions)):
            batches = map(self.rewrite_cells, batches)
        return map(join_continued_lines, batches) if self.join_lines else batches


@dataclass(frozen=True)
class Part:
    """Groups `start` to `stop` of a source's files; with `spans`, of each file of one group, the same lines of them."""

    start: int
    stop: int
    spans: tuple[Span, ...] = ()


def expand_files(root: str, entries: tuple[str, ...]) -> tuple[str, ...]:
    """`entries` of a config with folders and patterns (`parts/*.tsv.gz`) replaced by the files in them, by name."""
    files = list[str]()
    for entry in entries:
        folder = Path(root, entry)
        if is_url(entry) or not (folder.is_dir() or re.search(r"[*?\[]", entry.partition("!")[0])):
            files.append(entry)
            continue
        matches = (
            folder.iterdir()
            if folder.is_dir()
            else Path(root).glob(entry)
            if not folder.is_absolute()
            else (Path(folder.anchor).glob(str(folder.relative_to(folder.anchor))))
        )
        names = sorted(str(path) for path in matches if path.is_file() and not path.name.startswith("."))
        if not names:
            raise UserError(f"{entry}: no file there (looked in {folder}); fix the path in the config")
        files += [name if Path(entry).is_absolute() else str(Path(name).relative_to(root)) for name in names]
    return tuple(files)


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """A source whose files hold both languages and are read one after the other."""

    files: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in order."""
        return self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield the batches of every file."""
        return self.read_part(root, Part(0, len(self.files)))

    @property
    def file_groups(self) -> list[tuple[str, ...]]:
        """Each file by itself."""
        return [(path,) for path in self.files]

    def read_part(self, root: str, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the batches of some files."""
        for index in range(part.start, part.stop):
            yield from self.read_file(root, self.files[index], index)

    @abstractmethod
    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Yield the batches of one file; `index` is its place in `paths`."""


@dataclass(frozen=True, kw_only=True)
class LineSource(FileSource):
    """A source of files whose every line gives its rows alone."""

    reads_spans: ClassVar[bool] = True

    def read_part(self, root: str, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the batches of some files, or of some lines of one."""
        for index in range(part.start, part.stop):
            yield from self.read_file(root, self.files[index], index, *part.spans)

    @abstractmethod
    def read_file(self, root: str, path: str, index: int, span: Span | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the batches of one file, or of a span of it, which is no error where no line is of use."""


@dataclass(frozen=True, kw_only=True)
class PairSource(FileSource):
    """A source whose files are read pair by pair, in plain Python."""

    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Yield the pairs of one file in batches."""
        yield from pair_batches(self.pairs(root, path), index)

    @abstractmethod
    def pairs(self, root: str, path: str) -> Iterator["Pair"]:
        """Yield the pairs of one file."""


@dataclass(frozen=True, kw_only=True)
class TwoFiles(Source):
    """A source of one English and one Chinese file."""

    en: str
    zh: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The English file, then the Chinese."""
        return (self.en, self.zh)


@dataclass(frozen=True)
class Pair:
    """One pair; `line` and `sub` say where it stands, `fault` why it is rejected."""

    en: str
    zh: str
    line: int
    sub: int = 0
    image: str = ""
    fault: str = ""


def paired_files(name: str, en: tuple[str, ...], zh: tuple[str, ...]) -> list[tuple[str, str]]:
    """English and Chinese files of the source `name`, paired by position; UserError where they are not equally many."""
    if len(en) != len(zh):
        raise UserError(f"source {name}: en has {len(en)} files, zh {len(zh)}; they pair by position")
    return list(zip(en, zh, strict=True))


def raw_batch(
    en: pa.Array,
    zh: pa.Array,
    file: int,
    line: np.ndarray | pa.Array,
    image: pa.Array | None = None,
    sub: np.ndarray | pa.Array | None = None,
    fault: pa.Array | None = None,
) -> pa.RecordBatch:
    """One batch of raw pairs of one file; absent columns take their neutral value."""
    rows = len(en)
    empty = pa.Array.from_buffers(TEXT, rows, [None, pa.py_buffer(np.zeros(rows + 1, np.int64)), pa.py_buffer(b"")])
    return pa.record_batch(
        [
            en.cast(TEXT),
            zh.cast(TEXT),
            empty if image is None else image.cast(TEXT),
            pa.array(np.full(rows, file, np.int32)),
            pa.array(line, pa.int64()),
            pa.array(np.zeros(rows, np.int32) if sub is None else sub, pa.int32()),
            empty if fault is None else fault.cast(TEXT),
        ],
        schema=RAW,
    )


def pair_batches(pairs: Iterator[Pair], file: int) -> Iterator[pa.RecordBatch]:
    """Raw batches of `pairs`, which all come from file number `file`."""
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
