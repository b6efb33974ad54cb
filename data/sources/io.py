"""Corpus files, local or by fsspec URL, in any encoding: as bytes, as text, or as lines in Arrow arrays."""

import codecs
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import fsspec  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import Buffer

from data.cli import UserError
from data.jit import njit
from data.sources.compressed import PACKED, STREAM_ERRORS, decompressed

TEXT = pa.large_string()
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
BLOCK_BYTES = 8 << 20  # bytes a block: large enough for vectorised work, small enough for many at once
MAX_LINE_BYTES = 64 << 20
SAMPLE_BYTES = 1 << 16  # start of a file by which its encoding is checked
LINE_FEED, RETURN = 10, 13


def is_url(path: str) -> bool:
    """Whether fsspec opens `path`, not the file system: `s3://...`, `zip::...`."""
    return "://" in path or "::" in path


def resolve_path(root: str, path: str) -> str:
    """`path` of a config, relative to the config's folder; a URL stays as it is."""
    return path if is_url(path) else str(Path(root, path))


@contextmanager
def open_decompressed(root: str, path: str) -> Iterator[IO[bytes]]:
    """The decompressed bytes of `path`; `archive.zip!member` and `archive.tar.gz!member` read one member in place."""
    archive, _, member = path.partition("!")
    target = resolve_path(root, archive)
    with _open_raw(target, path) as raw:
        if member or PACKED.search(archive.split("?")[0].lower()):
            with decompressed(raw, archive, member, path) as stream:
                yield stream
        else:
            yield raw


bytes_read = Counter[str]()  # of each local file, in this process: how far a reader has come


class _CountedFile(io.FileIO):
    """A file for reading that adds to `bytes_read`."""

    def readinto(self, buffer: Buffer) -> int | None:
        """As FileIO."""
        count = super().readinto(buffer)
        bytes_read[str(self.name)] += count or 0
        return count

    def readall(self) -> bytes:
        """As FileIO."""
        data = super().readall()
        bytes_read[str(self.name)] += len(data)
        return data


@contextmanager
def _open_raw(target: str, path: str) -> Iterator[IO[bytes]]:
    try:
        remote = is_url(target)  # closed below, after the errors of opening
        stream: IO[bytes] = fsspec.open(target, "rb").open() if remote else io.BufferedReader(_CountedFile(target))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (looked for {target}); fix the path in the config") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file") from None
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{path}: cannot be opened: {error}; check the path or URL") from error
    with stream:
        yield stream


def read_bytes(root: str, path: str) -> bytes:
    """The whole decompressed file, for formats that are one document."""
    with open_decompressed(root, path) as stream, damage_as_error(path):
        return stream.read()


def read_text(root: str, path: str, encoding: str) -> str:
    """The whole file as text, lines ending with newlines; bytes that are not `encoding` become U+FFFD."""
    content = read_bytes(root, path)
    check_encoding(path, encoding, content)
    text = content.decode(encoding, "replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


@contextmanager
def damage_as_error(path: str) -> Iterator[None]:
    """While open, a stream that ends early or is damaged raises UserError."""
    try:
        yield
    except STREAM_ERRORS as error:
        raise UserError(f"{path}: the file is cut short or damaged ({error}); fetch it again") from error


def check_encoding(path: str, encoding: str, start: bytes) -> None:
    """UserError where Python does not know `encoding`, or where `start` of the file is text in another one."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UserError(f"{path}: unknown encoding {encoding!r}; use for example utf-8, utf-16 or gb18030") from None
    if not is_utf8(encoding):
        return
    candidates = ["utf-16"] if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else []
    lines = [line for line in start[:SAMPLE_BYTES].split(b"\n")[:-1] if not line.isascii()] if not candidates else []
    if len(lines) >= 10 and 2 * sum(not _decodes(line, "utf-8") for line in lines) > len(lines):
        whole = b"\n".join(lines)
        candidates = [name for name in ("gb18030", "big5") if _decodes(whole, name)][:1]
    if candidates:
        raise UserError(f"{path}: not UTF-8, but it reads as {candidates[0]}; set `encoding: {candidates[0]}`")


def is_utf8(encoding: str) -> bool:
    """Whether `encoding` is a name of UTF-8, whose bytes are taken as they are."""
    return codecs.lookup(encoding).name == "utf-8"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of one file: `text` without line ends, `first` the 1-based number of the first."""

    text: pa.Array  # large_string [lines]
    first: int

    def numbers(self) -> np.ndarray:
        """1-based line numbers, int64 [lines]."""
        return np.arange(self.first, self.first + len(self.text), dtype=np.int64)


@dataclass(frozen=True)
class Span:
    """Whole lines of a plain UTF-8 file: bytes `start` to `stop`; the first line has the 1-based number `line`."""

    start: int
    stop: int
    line: int


def read_lines(root: str, path: str, encoding: str = "utf-8", span: Span | None = None) -> Iterator[Lines]:
    """Yield the lines of `path` or of a span of it.

    Bytes that are not `encoding` become U+FFFD, which the cleaning rejects. A lone carriage return ends a line only in
    a file that uses it for most of its lines: in others it is a stray byte, and a line more on one side would shift
    all pairs after it.
    """
    first = span.line if span else 1
    for block in _blocks(root, path, encoding, span):
        text = _split(block)
        if len(text):
            yield Lines(text, first)
        first += len(text)


def _blocks(root: str, path: str, encoding: str, span: Span | None) -> Iterator[bytes]:
    """Yield valid UTF-8 blocks that end with a line end; those of a span are those of the whole file."""
    decoder: codecs.IncrementalDecoder | None = None
    returns = False if span else None  # whether \r ends lines; None before the first line end
    remainder, start, held = b"", not (span and span.start), b""
    with open_decompressed(root, path) as stream:
        position = stream.seek(span.start) if span else 0
        while True:
            size = min(BLOCK_BYTES - position % BLOCK_BYTES, span.stop - position) if span else BLOCK_BYTES
            with damage_as_error(path):
                data = stream.read(size)
            final, position = not data, position + len(data)
            if start:
                check_encoding(path, encoding, data)
                decoder = None if is_utf8(encoding) else codecs.getincrementaldecoder(encoding)("replace")
            if decoder:
                try:
                    data = decoder.decode(data, final).encode("utf-8", "replace")
                except UnicodeError as error:
                    raise UserError(f"{path}: not {encoding} ({error}); fix `encoding` of its source") from error
            if start:
                data, start = data.removeprefix(b"\xef\xbb\xbf"), False
            data = held + data
            held = b"\r" if data.endswith(b"\r") and not final else b""  # it may be half of \r\n
            data = data.removesuffix(held)
            returns = ends_with_returns(data) if returns is None else returns
            if returns:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            cut = data.rfind(b"\n") + 1
            if final:
                if remainder + data:
                    yield _valid_utf8((remainder + data).removesuffix(b"\n") + b"\n")
                return
            if cut == 0:
                remainder += data
                if len(remainder) > MAX_LINE_BYTES:
                    raise UserError(f"{path}: a line longer than {MAX_LINE_BYTES >> 20} MiB; is this the right format?")
            else:
                yield _valid_utf8(b"".join((remainder, memoryview(data)[:cut])))
                remainder = data[cut:]


def ends_with_returns(data: bytes) -> bool | None:
    """Whether most lines of `data` end with a lone carriage return; None where no line ends."""
    feeds, returns = data.count(b"\n"), data.count(b"\r")
    return returns - data.count(b"\r\n") > feeds if feeds + returns else None


def _valid_utf8(block: bytes) -> bytes:
    """`block` if it is UTF-8, else with U+FFFD for each bad sequence; line ends and tabs stay where they are."""
    as_binary = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(np.array([0, len(block)])), pa.py_buffer(block)]
    )
    try:
        as_binary.cast(TEXT)  # Arrow only looks; Python's decoding would make a string as large again, under its lock
    except pa.ArrowInvalid:
        return block.decode("utf-8", "replace").encode("utf-8")
    return block


def _split(block: bytes) -> pa.Array:
    """Split at \\n, any \\r before it dropped; `block` ends with \\n."""
    data = np.frombuffer(block, np.uint8)
    offsets, body = np.zeros(block.count(b"\n") + 1, np.int64), np.empty(len(data), np.uint8)
    _split_at_line_feeds(data, offsets, body)
    return pa.Array.from_buffers(
        TEXT, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(body[: offsets[-1]])]
    )


@njit
def _split_at_line_feeds(data: Bytes, offsets: Offsets, body: Bytes) -> None:
    line = written = 0
    for byte in data:
        if byte == LINE_FEED:
            while written > offsets[line] and body[written - 1] == RETURN:
                written -= 1
            line += 1
            offsets[line] = written
        else:
            body[written] = byte
            written += 1
