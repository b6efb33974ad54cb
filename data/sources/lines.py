"""Lines of a file as Arrow arrays, block by block, valid UTF-8 whatever the bytes were."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.command import UserError
from data.compiled import compiled
from data.pair import TEXT
from data.sources.files import BLOCK, BROKEN, LONGEST_LINE, broken, codec, opened

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
    codec(path, encoding)
    first = 1
    for block in _blocks(root, path, encoding):
        text = _split(block)
        if len(text):
            yield Lines(text, first)
        first += len(text)


def _blocks(root: str, path: str, encoding: str) -> Iterator[bytes]:
    """Yield valid UTF-8 blocks that end with a line end."""
    decoder = None if encoding.lower() in ("utf-8", "utf8") else codecs.getincrementaldecoder(encoding)("replace")
    rest, start = b"", True
    with opened(root, path) as stream:
        while True:
            try:
                data = stream.read(BLOCK)
            except BROKEN as error:
                raise broken(path, error) from error
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
                if rest + data:
                    yield _valid(rest + data + b"\n")
                return
            if cut == 0:
                rest += data
                if len(rest) > LONGEST_LINE:
                    raise UserError(f"{path}: a line longer than {LONGEST_LINE >> 20} MiB; is this the right format?")
            else:
                yield _valid(b"".join((rest, memoryview(data)[:cut])))
                rest = data[cut:]


def _valid(block: bytes) -> bytes:
    """`block` if it is UTF-8, else with U+FFFD for each bad sequence; line ends and tabs stay where they are."""
    whole = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(np.array([0, len(block)])), pa.py_buffer(block)]
    )
    try:
        whole.cast(TEXT)  # Arrow only looks; Python's decoding would make a string as large again, under its lock
    except pa.ArrowInvalid:
        return block.decode("utf-8", "replace").encode("utf-8")
    return block


def _split(block: bytes) -> pa.Array:
    """Split at \\n; a \\r before it goes with it. `block` ends with \\n."""
    data = np.frombuffer(block, np.uint8)
    offsets, body = np.zeros(block.count(b"\n") + 1, np.int64), np.empty(len(data), np.uint8)
    _cut(data, offsets, body)
    return pa.Array.from_buffers(
        TEXT, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(body[: offsets[-1]])]
    )


@compiled
def _cut(data: Bytes, offsets: Offsets, body: Bytes) -> None:
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
