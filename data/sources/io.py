"""Opening what publishers publish: plain, gz, bz2, xz, zst and zip members, local or by fsspec URL.

Lines of a file as Arrow arrays, block by block, valid UTF-8 whatever the bytes were.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import fsspec  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.cli import UserError
from data.jit import njit
from data.schema import TEXT

BLOCK_BYTES = 8 << 20  # bytes a block: large enough for vectorised work, small enough for many at once
MAX_LINE_BYTES = 64 << 20


def resolve_path(root: str, path: str) -> str:
    """`path` as written in a config, relative to the config's folder; a URL stays as it is."""
    if "://" in path or "::" in path:
        return path
    return str(Path(root, path))


@contextmanager
def open_decompressed(root: str, path: str) -> Iterator[IO[bytes]]:
    """The decompressed bytes of `path`; `archive.zip!member` reads one member without extracting it."""
    archive, _, member = path.partition("!")
    target = resolve_path(root, archive)
    with _open_raw(target, path) as raw, _decompressed(raw, archive, member, path) as stream:
        yield stream


@contextmanager
def _open_raw(target: str, path: str) -> Iterator[IO[bytes]]:
    try:
        if "://" not in target and "::" not in target:
            stream: IO[bytes] = Path(target).open("rb")  # noqa: SIM115  # closed below, after the errors of opening
        else:
            stream = fsspec.open(target, "rb").open()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (looked for {target}); mend the path in the config") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file") from None
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{path}: cannot be opened: {error}; check the path or URL") from error
    with stream:
        yield stream


def _zstd(raw: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))


DECOMPRESS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda raw: cast(IO[bytes], gzip.open(raw)),  # noqa: SIM115
    ".bz2": lambda raw: cast(IO[bytes], bz2.open(raw)),  # noqa: SIM115
    ".xz": lambda raw: cast(IO[bytes], lzma.open(raw)),  # noqa: SIM115
    ".zst": _zstd,
}
COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|zst)$")  # ending of a lower-case name


@contextmanager
def _decompressed(raw: IO[bytes], archive: str, member: str, path: str) -> Iterator[IO[bytes]]:
    suffix = Path(archive.split("?")[0]).suffix.lower()
    if suffix == ".zip":
        with _open_zip_member(raw, member, path) as stream:
            yield stream
    elif suffix in DECOMPRESS:
        with DECOMPRESS[suffix](raw) as stream:
            yield stream
    else:
        yield raw


@contextmanager
def _open_zip_member(raw: IO[bytes], member: str, path: str) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            chosen = member or (names[0] if len(names) == 1 else "")
            if chosen not in names:
                raise UserError(f"{path}: the zip has no member {member!r}; write FILE.zip!MEMBER, one of {names[:8]}")
            with archive.open(chosen) as stream:
                yield stream
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable zip ({error}); fetch the file again") from error


STREAM_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError)


def read_bytes(root: str, path: str) -> bytes:
    """The whole decompressed file, for formats that are one document."""
    with open_decompressed(root, path) as stream:
        try:
            return stream.read()
        except STREAM_ERRORS as error:
            raise damaged_file_error(path, error) from error


def read_text(root: str, path: str, encoding: str) -> str:
    """The whole file as text; bytes that are not `encoding` become U+FFFD and are rejected row by row later."""
    return read_bytes(root, path).decode(check_encoding(path, encoding), "replace").removeprefix("\ufeff")


def check_encoding(path: str, encoding: str) -> str:
    """`encoding` if Python knows it."""
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(f"{path}: unknown encoding {encoding!r}; use for example utf-8, utf-16 or gb18030") from None
    return encoding


def damaged_file_error(path: str, error: BaseException) -> UserError:
    """The one line for a stream that ends early or is damaged."""
    return UserError(f"{path}: the file is cut short or damaged ({error}); fetch it again")


Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
LINE_FEED, RETURN = 10, 13


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of one file: `text` without line ends, `first` the 1-based number of the first."""

    text: pa.Array  # large_string [lines]
    first: int

    def numbers(self) -> np.ndarray:
        """1-based line numbers, int64 [lines]."""
        return np.arange(self.first, self.first + len(self.text), dtype=np.int64)


def read_lines(root: str, path: str, encoding: str = "utf-8") -> Iterator[Lines]:
    """Yield the lines of `path`; bytes that are not `encoding` become U+FFFD, which the cleaning rejects."""
    check_encoding(path, encoding)
    first = 1
    for block in _blocks(root, path, encoding):
        text = _split(block)
        if len(text):
            yield Lines(text, first)
        first += len(text)


def _blocks(root: str, path: str, encoding: str) -> Iterator[bytes]:
    """Yield valid UTF-8 blocks that end with a line end."""
    decoder = None if encoding.lower() in ("utf-8", "utf8") else codecs.getincrementaldecoder(encoding)("replace")
    remainder, start = b"", True
    with open_decompressed(root, path) as stream:
        while True:
            try:
                data = stream.read(BLOCK_BYTES)
            except STREAM_ERRORS as error:
                raise damaged_file_error(path, error) from error
            final = not data
            if decoder:
                try:
                    data = decoder.decode(data, final).encode("utf-8", "replace")
                except UnicodeError as error:
                    raise UserError(f"{path}: not {encoding} ({error}); mend `encoding` of its source") from error
            if start and data:
                data, start = data.removeprefix(b"\xef\xbb\xbf"), False
            cut = data.rfind(b"\n") + 1
            if final:
                if remainder + data:
                    yield _valid_utf8(remainder + data + b"\n")
                return
            if cut == 0:
                remainder += data
                if len(remainder) > MAX_LINE_BYTES:
                    raise UserError(f"{path}: a line longer than {MAX_LINE_BYTES >> 20} MiB; is this the right format?")
            else:
                yield _valid_utf8(b"".join((remainder, memoryview(data)[:cut])))
                remainder = data[cut:]


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
    """Split at \\n; a \\r before it goes with it. `block` ends with \\n."""
    data = np.frombuffer(block, np.uint8)
    offsets, body = np.zeros(block.count(b"\n") + 1, np.int64), np.empty(len(data), np.uint8)
    _split_at_line_feeds(data, offsets, body)
    return pa.Array.from_buffers(
        TEXT, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(body[: offsets[-1]])]
    )


@njit
def _split_at_line_feeds(data: Bytes, offsets: Offsets, body: Bytes) -> None:
    line = at = 0
    for byte in data:
        if byte == LINE_FEED:
            if at > offsets[line] and body[at - 1] == RETURN:
                at -= 1
            line += 1
            offsets[line] = at
        else:
            body[at] = byte
            at += 1
