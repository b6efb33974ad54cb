"""Writes the token store: a corpus's shards are tokenised one by one, in as many processes as wanted, and then joined.

A shard is whole or absent below its temporary name, so that a killed run goes on with the shards that are left, and
several machines may share the work. The store has the same bytes however it was written.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from tqdm import tqdm

from data.cli import UserError
from data.files import atomic_folder, partial_path, remove_abandoned
from data.loader.token_store import VIEWS

_COLUMNS = ("en", "zh", "domain")
_CHUNK_ROWS = 1 << 18  # rows a record batch
_SCHEMA = pa.schema([(view, pa.large_list(pa.int32())) for view in VIEWS])


@dataclass(frozen=True)
class Tokenisation:
    """What decides the ids of a store; tokenizers as the JSON of their tokenizer.json, which processes can pass on."""

    teacher: str
    student: str
    max_length: int
    same_ascii: bool
    """The student's tokenizer gives the teacher's ids for ASCII text, which is then tokenised once."""


def write_token_store(
    corpus: Path,
    store: Path,
    teacher: Tokenizer,
    student: Tokenizer,
    max_length: int,
    same_ascii: bool = False,
    processes: int = 1,
) -> Path:
    """Tokenise `corpus` into a folder below `store` named by a hash of the inputs, unless it exists; returns it.

    Sequences over `max_length` tokens are cut and keep their end-of-text token. One process runs the tokenizers on all
    cores, but what is around them on one; with more processes each has a core.
    """
    how = Tokenisation(_without_padding(teacher), _without_padding(student), max_length, same_ascii)
    shards = [path for split in ("train", "valid") for path in sorted((corpus / split).glob("*.parquet"))]
    if not any(path.parent.name == "train" for path in shards):
        raise UserError(
            f"{corpus}/train: no Parquet shards there; build a corpus first: python -m data.build CONFIG --out {corpus}"
        )
    folder = store / _fingerprint(shards, how)
    if folder.is_dir():
        return folder
    parts = folder.with_name(f"{folder.name}.parts")
    for beside in (store, parts, parts / "train", parts / "valid"):
        remove_abandoned(beside)
    partial = partial_path(folder)
    try:
        _tokenise_shards(shards, parts, how, processes)
        for split in ("train", "valid"):
            (partial / split).mkdir(parents=True)
            _join([parts / split / path.stem for path in shards if path.parent.name == split], partial / split)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another run has finished the same store
            raise
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)
    return folder


def _fingerprint(shards: Sequence[Path], how: Tokenisation) -> str:
    digest = hashlib.sha256(json.dumps([how.max_length, how.teacher, how.student]).encode())
    for shard in shards:
        digest.update(shard.name.encode())
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _tokenise_shards(shards: Sequence[Path], parts: Path, how: Tokenisation, processes: int) -> None:
    """Write `parts/SPLIT/SHARD/DOMAIN.arrow` of every shard that is not there."""
    rows = {shard: pq.read_metadata(shard).num_rows for shard in shards}
    missing = [shard for shard in shards if not (parts / shard.parent.name / shard.stem).is_dir()]
    done = sum(rows.values()) - sum(rows[shard] for shard in missing)
    with tqdm(total=sum(rows.values()), initial=done, desc="tokenise", unit=" pairs", unit_scale=True) as bar:
        if processes == 1:
            for shard in missing:
                for count in _tokenise_shard(shard, parts, how):
                    bar.update(count)
            return
        context = multiprocessing.get_context("spawn")  # threads of tokenizers do not survive a fork
        with ProcessPoolExecutor(processes, context, _one_core) as pool:
            jobs = [(shard, parts, how) for shard in missing]
            for shard, _ in zip(missing, pool.map(_in_process, jobs), strict=True):
                bar.update(rows[shard])


def _one_core() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _in_process(job: tuple[Path, Path, Tokenisation]) -> None:
    for _ in _tokenise_shard(*job):
        pass


def _tokenise_shard(shard: Path, parts: Path, how: Tokenisation) -> Iterator[int]:
    """Write one shard's part, yielding the number of rows after each batch."""
    folder = parts / shard.parent.name / shard.stem
    folder.parent.mkdir(parents=True, exist_ok=True)
    tokenizers = Tokenizer.from_str(how.teacher), Tokenizer.from_str(how.student)
    with atomic_folder(folder) as partial:
        partial.mkdir()
        with _Writers(partial) as writers:
            rows = pa.dataset.dataset(shard, format="parquet")
            for batch in rows.to_batches(columns=list(_COLUMNS), batch_size=1 << 14):
                domains = batch["domain"].dictionary_encode()
                for code, domain in enumerate(domains.dictionary.to_pylist()):
                    part = batch.filter(pc.equal(domains.indices, code))
                    writers.add(domain, _record_batch(part, *tokenizers, how))
                yield len(batch)


def _record_batch(rows: pa.RecordBatch, teacher: Tokenizer, student: Tokenizer, how: Tokenisation) -> pa.RecordBatch:
    en = rows["en"].to_pylist()
    teacher_en = _encode(teacher, en, how.max_length)
    student_zh = _encode(student, rows["zh"].to_pylist(), how.max_length)
    if how.same_ascii:
        other = [place for place, text in enumerate(en) if not text.isascii()]
        student_en = list(teacher_en)
        for place, ids in zip(other, _encode(student, [en[place] for place in other], how.max_length), strict=True):
            student_en[place] = ids
    else:
        student_en = _encode(student, en, how.max_length)
    columns = [pa.array(ids, type=_SCHEMA.field(0).type) for ids in (teacher_en, student_en, student_zh)]
    return pa.record_batch(columns, schema=_SCHEMA)


def _encode(tokenizer: Tokenizer, texts: list[str], max_length: int) -> list[list[int]]:
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    return [row if len(row) <= max_length else [*row[: max_length - 1], row[-1]] for row in ids]


class _Writers:
    """One Arrow stream a domain in a folder, in record batches of about _CHUNK_ROWS."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers = dict[str, pa.RecordBatchStreamWriter]()
        self._pending = dict[str, list[pa.RecordBatch]]()

    def add(self, domain: str, batch: pa.RecordBatch) -> None:
        """Append rows to a domain."""
        self._pending.setdefault(domain, []).append(batch)
        if sum(map(len, self._pending[domain])) >= _CHUNK_ROWS:
            self._flush(domain)

    def _flush(self, domain: str) -> None:
        if domain not in self._writers:
            self._writers[domain] = pa.ipc.new_stream(str(self._folder / f"{domain}.arrow"), _SCHEMA)
        self._writers[domain].write_table(pa.Table.from_batches(self._pending.pop(domain)).combine_chunks())

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, *_: object) -> None:
        for domain in list(self._pending):
            self._flush(domain)
        for writer in self._writers.values():
            writer.close()


def _join(parts: Iterable[Path], folder: Path) -> None:
    """The parts of a split as one stream a domain, its rows in the order of the corpus."""
    with _Writers(folder) as writers:
        for path in (path for part in parts for path in sorted(part.glob("*.arrow"))):
            for batch in pa.ipc.open_stream(pa.memory_map(str(path))):
                writers.add(path.stem, batch)


def _without_padding(tokenizer: Tokenizer) -> str:
    """Its JSON without the padding and truncation that a tokenizer.json may set."""
    copy: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return str(copy.to_str())


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
