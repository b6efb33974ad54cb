"""The token store: three tokenisations of every pair, written once and then memory-mapped.

One Arrow stream a domain and split (`datasets.Dataset.from_file` reads it): a row of a domain is its number in that
file, so a mixture of domains needs no index.
"""

import hashlib
import json
import os
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
from data.files import remove_abandoned

VIEWS = ("teacher_en", "student_en", "student_zh")
_COLUMNS = ("en", "zh", "domain")
_CHUNK_ROWS = 1 << 18  # rows a record batch
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
        whole = pa.memory_map(str(path)).read_buffer()
        table = pa.ipc.open_stream(whole).read_all()
        self._starts = np.cumsum([0, *(len(chunk) for chunk in table.column(0).chunks)])
        # The file as integers of both sizes, so that rows of any chunks are gathered at once by their offsets in it.
        self._int64_words = np.frombuffer(whole, np.int64, whole.size // 8)
        self._int32_words = np.frombuffer(whole, np.int32, whole.size // 4)
        buffers = {
            view: np.array([_buffer_offsets(c, whole.address) for c in table[view].chunks], np.int64).reshape(-1, 2)
            for view in VIEWS
        }
        self._offsets = {view: offsets[:, 0] for view, offsets in buffers.items()}
        self._values = {view: offsets[:, 1] for view, offsets in buffers.items()}
        with path.open("rb") as file:  # read, not mapped: these pages are needed once
            self._lengths = {view: self._read_lengths(file, self._offsets[view]) for view in VIEWS}

    def __len__(self) -> int:
        """Rows in the domain."""
        return int(self._starts[-1])

    def lengths(self, view: str, rows: np.ndarray) -> np.ndarray:
        """Tokens in each of `rows`, int64 [rows]."""
        return np.asarray(self._lengths[view][rows], np.int64)

    def gather(self, view: str, rows: np.ndarray) -> list[np.ndarray]:
        """The ids of each of `rows`, views into the mapped file."""
        chunk = self._chunk_of(rows)
        index = self._offsets[view][chunk] + rows - self._starts[chunk]
        bounds = self._values[view][chunk] + np.stack([self._int64_words[index], self._int64_words[index + 1]])
        return [self._int32_words[start:stop] for start, stop in bounds.T.tolist()]

    def _read_lengths(self, file: BinaryIO, offsets: np.ndarray) -> np.ndarray:
        """Tokens in every row, in the smallest type: a window needs those of thousands of rows all over the file."""
        lengths = [np.empty(0, np.uint8)]
        for start, rows in zip(offsets.tolist(), np.diff(self._starts).tolist(), strict=True):
            file.seek(8 * start)
            chunk = np.diff(np.fromfile(file, np.int64, rows + 1))
            lengths.append(chunk.astype(np.min_scalar_type(chunk.max(initial=0))))
        return np.concatenate(lengths)

    def _chunk_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, rows, side="right") - 1


def _buffer_offsets(chunk: pa.LargeListArray, base: int) -> tuple[int, int]:
    """Where a chunk's offsets start in the file, counted in int64, and its values, counted in int32."""
    _, offsets, _, values = chunk.buffers()
    return (offsets.address - base) // 8 + chunk.offset, ((values.address - base) // 4 if values else 0)


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
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
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
