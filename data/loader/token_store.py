"""The token store: three tokenisations of every pair, memory-mapped; `tokenise` writes it.

One Arrow stream a domain and split (`datasets.Dataset.from_file` reads it): a row of a domain is its number in that
file, so a mixture of domains needs no index.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

VIEWS = ("teacher_en", "student_en", "student_zh")
_ANCHOR_ROWS = 64  # between rows whose place in the file is kept in memory, 8 bytes each


@dataclass(frozen=True)
class TokenIds:
    """Ragged token ids: `values` [tokens] int32, `lengths` [rows] int64."""

    values: np.ndarray
    lengths: np.ndarray

    def pad(self, pad: int, width: int | None = None) -> np.ndarray:
        """Ids as int64 [rows, width], right-padded with `pad`; width is the longest row's where it is None."""
        out = np.full((len(self.lengths), width or int(self.lengths.max())), pad, dtype=np.int64)
        out[np.arange(out.shape[1]) < self.lengths[:, None]] = self.values
        return out


class DomainTokens:
    """The rows of one domain and split: their tokens memory-mapped, their lengths in memory, a byte a row and view."""

    def __init__(self, path: Path) -> None:
        """Map the Arrow stream at `path`."""
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(self._map, "madvise"):  # a page fault then reads its page, not 128 KB around it
            self._map.madvise(mmap.MADV_RANDOM)
        whole = pa.py_buffer(self._map)
        table = pa.ipc.open_stream(whole).read_all()
        self._starts = np.cumsum([0, *(len(chunk) for chunk in table.column(0).chunks)])
        self._words = np.frombuffer(whole, np.int32, whole.size // 4)
        self._first_anchor = np.cumsum([0, *(-(-len(chunk) // _ANCHOR_ROWS) for chunk in table.column(0).chunks)])
        with path.open("rb") as file:  # read, not mapped: these pages are needed once
            views = {view: _read_view(file, table[view].chunks, whole.address) for view in VIEWS}
        self._lengths = {view: lengths for view, (lengths, _) in views.items()}
        self._anchors = {view: anchors for view, (_, anchors) in views.items()}

    def __len__(self) -> int:
        """Rows in the domain."""
        return int(self._starts[-1])

    def lengths(self, view: str, rows: np.ndarray) -> np.ndarray:
        """Tokens in each of `rows`, int64 [rows]."""
        return np.asarray(self._lengths[view][rows], np.int64)

    def gather(self, view: str, rows: np.ndarray) -> list[np.ndarray]:
        """The ids of each of `rows`, views into the mapped file."""
        start = self._word_offsets(view, rows)
        stop = start + self.lengths(view, rows)
        return [self._words[a:b] for a, b in zip(start.tolist(), stop.tolist(), strict=True)]

    def read_ahead(self, view: str, rows: np.ndarray) -> None:
        """Start reading the pages of `rows` from the disk all at once; `gather` waits for them one after the other."""
        if not hasattr(self._map, "madvise"):
            return
        start = self._word_offsets(view, rows)
        first, last = 4 * start // mmap.PAGESIZE, 4 * (start + self.lengths(view, rows)) // mmap.PAGESIZE
        pages = np.unique(np.concatenate([first, last]))
        for run in np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1):
            offset, stop = int(run[0]) * mmap.PAGESIZE, (int(run[-1]) + 1) * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, offset, min(stop, len(self._map)) - offset)

    def _word_offsets(self, view: str, rows: np.ndarray) -> np.ndarray:
        """Where the ids of each row start in the file, in int32 words: from the anchor before it, and lengths."""
        chunk = np.searchsorted(self._starts, rows, side="right") - 1
        in_chunk = rows - self._starts[chunk]
        after_anchor = in_chunk % _ANCHOR_ROWS
        columns = np.arange(_ANCHOR_ROWS)
        before = np.minimum((rows - after_anchor)[:, None] + columns, max(len(self) - 1, 0))
        lengths = np.where(columns < after_anchor[:, None], self._lengths[view][before], 0)
        anchor = self._anchors[view][self._first_anchor[chunk] + in_chunk // _ANCHOR_ROWS]
        return np.asarray(anchor + lengths.sum(axis=1, dtype=np.int64))


def _read_view(file: BinaryIO, chunks: Sequence[pa.LargeListArray], base: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of every row, in the smallest type, and the offset in words of every `_ANCHOR_ROWS`-th row's ids."""
    lengths, anchors = [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
    for chunk in chunks:
        _, offsets, _, values = chunk.buffers()
        file.seek(offsets.address - base + 8 * chunk.offset)
        bounds = np.fromfile(file, np.int64, len(chunk) + 1)
        tokens = np.diff(bounds)
        lengths.append(tokens.astype(np.min_scalar_type(tokens.max(initial=0))))
        anchors.append(bounds[:-1:_ANCHOR_ROWS] + ((values.address - base) // 4 if values else 0))
    return np.concatenate(lengths), np.concatenate(anchors)


class TokenStore:
    """The tokenised corpus: `train` and `valid` rows by domain, in the order of the domains' names."""

    def __init__(self, folder: Path) -> None:
        """Map every domain of the folder that `write_token_store` returned."""
        self.train = _open_split(folder / "train")
        self.valid = _open_split(folder / "valid")


def _open_split(folder: Path) -> dict[str, DomainTokens]:
    return {path.stem: DomainTokens(path) for path in sorted(folder.glob("*.arrow"))}
