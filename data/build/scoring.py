"""Read and score one source on Daft: every row comes back in order, good or bad, with its scores."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import daft
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from daft.io.source import DataSource, DataSourceTask
from daft.recordbatch import RecordBatch

from data.clean.characters import Mask, char_mask, decode, encode, rows_with
from data.clean.dedup import NUM_HASHES
from data.clean.normalise import is_credit, normalise_pair
from data.clean.scores import SCORES, References, is_null, score_pairs
from data.cli import UserError
from data.sources.base import RAW, Source
from data.sources.io import TEXT

CLEANING_BATCH_ROWS = 16384
MAX_READAHEAD = CLEANING_BATCH_ROWS * max(8, 4 * (os.cpu_count() or 1))  # rows read and not yet taken back from Daft
READAHEAD_TIMEOUT = 500  # hundredths of a second; a reader that waited so long reads on
NUMBERS = {**dict.fromkeys(SCORES, pa.float32()), "en_key": pa.uint64(), "zh_key": pa.uint64()}
CLEANED_TYPE = pa.struct(
    [("en", TEXT), ("zh", TEXT), ("fault", TEXT), *NUMBERS.items(), ("signature", pa.binary(NUM_HASHES))]
)
PASSTHROUGH_COLUMNS = ("image", "file", "line", "sub", "row", "error")
READ_SCHEMA = pa.schema(
    [
        *RAW,
        ("row", pa.int64()),  # 0-based number within the source: the order to restore
        ("error", TEXT),  # null; the last record holds the reader's UserError, which Daft would wrap in text of its own
    ]
)
consumed_rows = dict[str, int]()  # rows taken back in this process, by source: Daft itself would read whole files ahead


@dataclass(frozen=True)
class SourceTask(DataSourceTask):
    """The reader of one source as a Daft task."""

    source: Source
    root: str

    @property
    def schema(self) -> daft.Schema:
        """Raw pairs with their place."""
        return daft.Schema.from_pyarrow_schema(READ_SCHEMA)

    async def read(self) -> AsyncIterator[RecordBatch]:
        """Yield raw batches of at most CLEANING_BATCH_ROWS rows, then the reader's UserError where it raised one."""
        row, name = 0, self.source.name
        try:
            for batch in self.source.batches(self.root):
                while batch.num_rows:
                    for _ in range(READAHEAD_TIMEOUT):
                        if row - consumed_rows.get(name, row) < MAX_READAHEAD:
                            break
                        await asyncio.sleep(0.01)
                    part, batch = batch.slice(0, CLEANING_BATCH_ROWS), batch.slice(CLEANING_BATCH_ROWS)
                    numbers = pa.array(np.arange(row, row + part.num_rows))
                    row += part.num_rows
                    yield _read_batch([*part.columns, numbers, pa.nulls(part.num_rows, TEXT)])
        except UserError as error:
            record = {"en": "", "zh": "", "image": "", "file": 0, "line": 0, "sub": 0, "fault": ""}
            record |= {"row": row, "error": str(error)}
            yield _read_batch([pa.array([record[field.name]], field.type) for field in READ_SCHEMA])


def _read_batch(columns: list[pa.Array]) -> RecordBatch:
    return RecordBatch.from_arrow_record_batches([pa.record_batch(columns, READ_SCHEMA)], READ_SCHEMA)


@dataclass(frozen=True)
class DaftSource(DataSource):
    """A source of pairs as a Daft data source."""

    source: Source
    root: str

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def schema(self) -> daft.Schema:
        """Raw pairs with their place."""
        return daft.Schema.from_pyarrow_schema(READ_SCHEMA)

    async def get_tasks(self, pushdowns: object) -> AsyncIterator[DataSourceTask]:
        """Yield one task: the order of rows is the order of the files."""
        yield SourceTask(self.source, self.root)


def clean_batch(en: pa.Array, zh: pa.Array, fault: pa.Array, source: Source, references: References) -> pa.StructArray:
    """Normal forms, scores and keys of a batch as CLEANED_TYPE; rows in = rows out."""
    raw_en, raw_zh, replacement = decode(en), decode(zh), char_mask("\ufffd")
    fault = _mark_fault(fault, rows_with(raw_en, replacement) | rows_with(raw_zh, replacement), "bad_utf8")
    fault = _mark_fault(fault, is_null(raw_en, raw_zh, source.domain == "dictionary"), "null")
    if source.speakers:
        fault = _mark_fault(fault, np.asarray(is_credit(en, zh)), "credit")
    english, chinese = normalise_pair(raw_en, raw_zh, source.simplify, source.spaces, source.speakers)
    scores = score_pairs(english, chinese, references)
    numbers = [pa.array(scores[name], kind) for name, kind in NUMBERS.items()]
    signature_bytes = pa.py_buffer(np.ascontiguousarray(scores["signature"]))
    signature = pa.FixedSizeBinaryArray.from_buffers(pa.binary(NUM_HASHES), len(en), [None, signature_bytes])
    values = [encode(english), encode(chinese), fault, *numbers, signature]
    return pa.StructArray.from_arrays(values, fields=list(CLEANED_TYPE))


def _mark_fault(fault: pa.Array, rows: Mask, reason: str) -> pa.Array:
    """`fault` with `reason` for those of `rows` that have none yet."""
    return pc.if_else(pc.and_(pc.equal(fault, ""), pa.array(rows)), reason, fault) if rows.any() else fault


def scored_batches(source: Source, root: str, references: References) -> Iterator[pa.RecordBatch]:
    """Run one source through Daft; yield its scored rows in order on any runner and number of threads."""

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(CLEANED_TYPE))
    def clean(en: daft.Series, zh: daft.Series, fault: daft.Series) -> pa.StructArray:
        english, chinese, faults = (column.to_arrow().cast(TEXT) for column in (en, zh, fault))
        return clean_batch(english, chinese, faults, source, references)

    frame = DaftSource(source, root).read()
    frame = frame.with_column("clean", clean(frame["en"], frame["zh"], frame["fault"]))
    frame = frame.select(*PASSTHROUGH_COLUMNS, daft.col("clean").unnest())
    consumed_rows[source.name] = 0
    try:
        for batch in ordered_batches(frame.to_arrow_iter()):
            consumed_rows[source.name] += batch.num_rows
            if batch["error"].null_count < batch.num_rows:
                raise UserError(batch["error"].drop_null()[0].as_py())
            yield batch.drop_columns(["error"])
    finally:
        del consumed_rows[source.name]


def ordered_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches by their `row` numbers, without that column: a cluster hands results back as they come."""
    waiting, expected = dict[int, pa.RecordBatch](), 0
    for batch in batches:
        rows = batch.column("row").to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), batch.num_rows]
        for start, end in itertools.pairwise(edges):
            if end > start:
                waiting[int(rows[start])] = batch.slice(start, end - start)
        while (ready := waiting.pop(expected, None)) is not None:
            expected += ready.num_rows
            yield ready.drop_columns(["row"])
    if waiting:
        raise AssertionError(f"row {expected} never came back from the runner; rows {sorted(waiting)[:5]} did")
