"""The token store: three tokenisations of every pair, written once and then memory-mapped.

One Arrow stream a domain and split (`datasets.Dataset.from_file` reads it): a row of a domain is its number in that
file, so a mixture of domains needs no index.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from tqdm import tqdm

from data.cli import UserError
from data.files import partial_path, remove_abandoned

VIEWS = ("teacher_en", "student_en", "student_zh")
_COLUMNS = ("en", "zh", "domain")
_CHUNK_ROWS = 1 << 18  # rows a record batch
_ANCHOR_ROWS = 64  # between rows whose place in the file is kept in memory, 8 bytes each
_SCHEMA = pa.schema([(view, pa.large_list(pa.int32())) for view in VIEWS])


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


def write_token_store(corpus: Path, store: Path, teacher: Tokenizer, student: Tokenizer, max_length: int) -> Path:
    """Tokenise `corpus` into a folder below `store` named by a hash of the inputs, unless it exists; returns it.

    Sequences over `max_length` tokens are cut and keep their end-of-text token. Tokenising runs on all cores.
    """
    teacher, student = _without_padding(teacher), _without_padding(student)
    shards = {split: sorted((corpus / split).glob("*.parquet")) for split in ("train", "valid")}
    if not shards["train"]:
        raise UserError(
            f"{corpus}/train: no Parquet shards there; build a corpus first: python -m data.build CONFIG --out {corpus}"
        )
    folder = store / _fingerprint(shards["train"] + shards["valid"], teacher, student, max_length)
    if folder.is_dir():
        return folder
    remove_abandoned(store)
    partial = partial_path(folder)
    for split, files in shards.items():
        (partial / split).mkdir(parents=True)
        _write_split(files, partial / split, teacher, student, max_length)
    try:
        partial.rename(folder)
    except OSError:  # another run finished the same store first
        shutil.rmtree(partial)
    return folder


def _open_split(folder: Path) -> dict[str, DomainTokens]:
    return {path.stem: DomainTokens(path) for path in sorted(folder.glob("*.arrow"))}


def _fingerprint(shards: Sequence[Path], teacher: Tokenizer, student: Tokenizer, max_length: int) -> str:
    digest = hashlib.sha256(json.dumps([max_length, teacher.to_str(), student.to_str()]).encode())
    for shard in shards:
        digest.update(shard.name.encode())
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _write_split(files: Sequence[Path], folder: Path, teacher: Tokenizer, student: Tokenizer, max_length: int) -> None:
    """One Arrow stream a domain, its rows in the order of the corpus."""
    if not files:
        return
    rows = pa.dataset.dataset(files, format="parquet")
    writers = dict[str, pa.RecordBatchStreamWriter]()
    pending = dict[str, list[pa.RecordBatch]]()

    def flush(domain: str) -> None:
        if domain not in writers:
            writers[domain] = pa.ipc.new_stream(str(folder / f"{domain}.arrow"), _SCHEMA)
        writers[domain].write_table(pa.Table.from_batches(pending.pop(domain)).combine_chunks())

    with tqdm(total=rows.count_rows(), desc=f"tokenise {folder.name}", unit=" pairs", unit_scale=True) as bar:
        for batch in rows.to_batches(columns=list(_COLUMNS), batch_size=1 << 14):
            domains = batch["domain"].dictionary_encode()
            for code, domain in enumerate(domains.dictionary.to_pylist()):
                part = batch.filter(pa.compute.equal(domains.indices, code))
                en, zh = part["en"].to_pylist(), part["zh"].to_pylist()
                views = ((teacher, en), (student, en), (student, zh))
                columns = [_encode(tokenizer, texts, max_length) for tokenizer, texts in views]
                pending.setdefault(domain, []).append(pa.record_batch(columns, schema=_SCHEMA))
                if sum(map(len, pending[domain])) >= _CHUNK_ROWS:
                    flush(domain)
            bar.update(len(batch))
    for domain in list(pending):
        flush(domain)
    for writer in writers.values():
        writer.close()


def _without_padding(tokenizer: Tokenizer) -> Tokenizer:
    """A copy without the padding and truncation that a tokenizer.json may set."""
    copy: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _encode(tokenizer: Tokenizer, texts: list[str], max_length: int) -> pa.Array:
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    cut = [row if len(row) <= max_length else [*row[: max_length - 1], row[-1]] for row in ids]
    return pa.array(cut, type=pa.large_list(pa.int32()))


def check_corpus(corpus: Path) -> None:
    """UserError unless `corpus` is a whole folder of `python -m data.build` with at least one training row."""
    shards = sorted((corpus / "train").glob("*.parquet"))
    if not shards:
        raise UserError(
            f"data.corpus: {corpus} is no corpus (no train/*.parquet there); "
            f"build one first: python -m data.build CONFIG.yaml --out {corpus}"
        )
    rows = 0
    for shard in [*shards, *sorted((corpus / "valid").glob("*.parquet"))]:
        try:
            with pq.ParquetFile(shard) as file:
                names, num_rows = file.schema_arrow.names, file.metadata.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{shard}: not a readable Parquet file ({error}); build the corpus again") from error
        missing = [column for column in _COLUMNS if column not in names]
        if missing:
            raise UserError(f"{shard}: no column {missing[0]!r}; it has {', '.join(names)}")
        rows += num_rows if shard in shards else 0
    if not rows:
        raise UserError(f"data.corpus: {corpus} has no training rows; its report.json says why each was rejected")
