"""Lines of a file as Arrow arrays, block by block, valid UTF-8 whatever the bytes are."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.cli import UserError
from data.jit import njit
from data.schema import TEXT
from data.sources.io import STREAM_ERRORS, check_encoding, damaged_file_error, is_utf8, open_decompressed

BLOCK_BYTES = 8 << 20  # bytes a block: large enough for vectorised work, small enough for many at once
MAX_LINE_BYTES = 64 << 20
LINE_FEED, RETURN = 10, 13
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of one file: `text` without line ends, `first` the 1-based number of the first."""

    text: pa.Array  # large_string [lines]
    first: int

    def numbers(self) -> np.ndarray:
        """1-based line numbers, int64 [lines]."""
        return np.arange(self.first, self.first + len(self.text), dtype=np.int64)


def read_lines(root: str, path: str, encoding: str = "utf-8") -> Iterator[Lines]:
    """Yield the lines of `path`; bytes that are not `encoding` become U+FFFD, which the cleaning rejects.

    A lone carriage return ends a line only in a file that uses it for most of its lines: in others it is a stray byte,
    and a line more on one side would shift all pairs after it.
    """
    first = 1
    for block in _blocks(root, path, encoding):
        text = _split(block)
        if len(text):
            yield Lines(text, first)
        first += len(text)


def _blocks(root: str, path: str, encoding: str) -> Iterator[bytes]:
    """Yield valid UTF-8 blocks that end with a line end."""
    decoder: codecs.IncrementalDecoder | None = None
    returns: bool | None = None  # whether \r ends lines; None before the first line end
    remainder, start, held = b"", True, b""
    with open_decompressed(root, path) as stream:
        while True:
            try:
                data = stream.read(BLOCK_BYTES)
            except STREAM_ERRORS as error:
                raise damaged_file_error(path, error) from error
            final = not data
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
            if returns is None and (feeds := data.count(b"\n")) + (all_returns := data.count(b"\r")):
                returns = all_returns - data.count(b"\r\n") > feeds
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
    line = at = 0
    for byte in data:
        if byte == LINE_FEED:
            while at > offsets[line] and body[at - 1] == RETURN:
                at -= 1
            line += 1
            offsets[line] = at
        else:
            body[at] = byte
            at += 1
