"""One source, end to end on Daft: read, normalise, score; every row is kept, good or bad, with its numbers."""

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

from data.clean.characters import char_mask
from data.clean.codepoints import Mask, TextColumn, decode, encode, replace_rows, rows_with, take_rows
from data.clean.dedup import NUM_HASHES
from data.clean.normalise import has_speaker_marks, is_credit, normalise_text, strip_speakers
from data.clean.scores import SCORES, References, score_pairs
from data.cli import UserError
from data.schema import RAW, TEXT
from data.sources.base import Source

CLEANING_BATCH_ROWS = 16384  # rows a batch of the cleaning
CLEANED_TYPE = pa.struct(
    [("en", TEXT), ("zh", TEXT), ("fault", TEXT)]
    + [(name, pa.float32()) for name in SCORES]
    + [("en_key", pa.uint64()), ("zh_key", pa.uint64()), ("signature", pa.binary(NUM_HASHES))]
)
MAX_READAHEAD = CLEANING_BATCH_ROWS * max(
    8, 4 * (os.cpu_count() or 1)
)  # rows that a reader may be ahead of what was taken back from Daft
READAHEAD_TIMEOUT = 500  # hundredths of a second that a reader waits at most before it reads on all the same
consumed_rows = dict[str, int]()  # rows taken back in this process, by source: Daft itself would read whole files ahead
PASSTHROUGH_COLUMNS = ("image", "file", "line", "sub", "row")
NUMBERED_SCHEMA = RAW.append(
    pa.field("row", pa.int64())
)  # 0-based number of the row within its source: the order to restore


@dataclass(frozen=True)
class SourceTask(DataSourceTask):
    """Daft's view of one source: its reader, run once, in order."""

    source: Source
    root: str

    @property
    def schema(self) -> daft.Schema:
        """Raw pairs with their place."""
        return daft.Schema.from_pyarrow_schema(NUMBERED_SCHEMA)

    async def read(self) -> AsyncIterator[RecordBatch]:
        """Yield raw batches; a mistake of the user travels as a row, so that every runner brings it home."""
        rows_read, raw_batches, name = 0, self.source.batches(self.root), self.source.name
        try:
            for batch in raw_batches:
                numbers = pa.array(np.arange(rows_read, rows_read + batch.num_rows, dtype=np.int64))
                numbered = pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=NUMBERED_SCHEMA)
                for start in range(0, batch.num_rows, CLEANING_BATCH_ROWS):
                    for _ in range(READAHEAD_TIMEOUT):
                        if rows_read + start - consumed_rows.get(name, rows_read) < MAX_READAHEAD:
                            break
                        await asyncio.sleep(0.01)
                    yield RecordBatch.from_arrow_record_batches(
                        [numbered.slice(start, CLEANING_BATCH_ROWS)], NUMBERED_SCHEMA
                    )
                rows_read += batch.num_rows
        except UserError as error:
            row = dict.fromkeys(NUMBERED_SCHEMA.names, 0) | {
                "en": "",
                "zh": "",
                "image": "",
                "fault": f"!{error}",
                "row": rows_read,
            }
            yield RecordBatch.from_arrow_record_batches(
                [pa.RecordBatch.from_pylist([row], NUMBERED_SCHEMA)], NUMBERED_SCHEMA
            )


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
        return daft.Schema.from_pyarrow_schema(NUMBERED_SCHEMA)

    async def get_tasks(self, pushdowns: object) -> AsyncIterator[DataSourceTask]:
        """One task: the order of rows is the order of the files."""
        yield SourceTask(self.source, self.root)


def clean_batch(en: pa.Array, zh: pa.Array, fault: pa.Array, source: Source, references: References) -> pa.StructArray:
    """Normal forms, scores and keys of a batch; rows in = rows out."""
    raw = decode(en), decode(zh)
    fault = _mark_fault(
        fault, rows_with(raw[0], char_mask("\ufffd")) | rows_with(raw[1], char_mask("\ufffd")), "bad_utf8"
    )
    if source.speakers:
        fault = _mark_fault(fault, np.asarray(is_credit(en, zh)), "credit")
    english = normalise_text(raw[0], chinese=False, simplify=False, spaces="keep")
    chinese = normalise_text(raw[1], chinese=True, simplify=source.simplify, spaces=source.spaces)
    if source.speakers:
        english, chinese = _strip_speakers(english, chinese, source)
    table = score_pairs(english, chinese, references)
    signature = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(NUM_HASHES), len(en), [None, pa.py_buffer(np.ascontiguousarray(table.pop("signature")))]
    )
    numbers = [pa.array(table[f.name], f.type) for f in list(CLEANED_TYPE)[3:-1]]
    values = [encode(english), encode(chinese), fault, *numbers, signature]
    return pa.StructArray.from_arrays(values, fields=list(CLEANED_TYPE))


def _mark_fault(fault: pa.Array, rows: Mask, reason: str) -> pa.Array:
    """`fault` with `reason` for those of `rows` that have none yet."""
    return pc.if_else(pc.and_(pc.equal(fault, ""), pa.array(rows)), reason, fault) if rows.any() else fault


def _strip_speakers(english: TextColumn, chinese: TextColumn, source: Source) -> tuple[TextColumn, TextColumn]:
    """Strip what only some rows have from these rows alone, and settle their spaces again."""
    rows = np.flatnonzero(has_speaker_marks(english, chinese))
    if not len(rows):
        return english, chinese
    en, zh = strip_speakers(encode(take_rows(english, rows)), encode(take_rows(chinese, rows)))
    return (
        replace_rows(english, rows, normalise_text(decode(en), chinese=False, simplify=False, spaces="keep")),
        replace_rows(chinese, rows, normalise_text(decode(zh), chinese=True, simplify=False, spaces=source.spaces)),
    )


def scored_batches(source: Source, root: str, references: References) -> Iterator[pa.RecordBatch]:
    """Run one source through Daft and yield its scored rows in order, whatever the number of threads."""

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(CLEANED_TYPE))
    def clean(en: daft.Series, zh: daft.Series, fault: daft.Series) -> pa.StructArray:
        return clean_batch(
            en.to_arrow().cast(TEXT), zh.to_arrow().cast(TEXT), fault.to_arrow().cast(TEXT), source, references
        )

    frame = DaftSource(source, root).read()
    frame = frame.with_column("clean", clean(frame["en"], frame["zh"], frame["fault"]))
    frame = frame.select(*PASSTHROUGH_COLUMNS, daft.col("clean").unnest())
    consumed_rows[source.name] = 0
    for batch in ordered_batches(frame.to_arrow_iter()):
        consumed_rows[source.name] += batch.num_rows
        fatal = batch.filter(pc.starts_with(batch.column("fault"), "!"))
        if fatal.num_rows:
            raise UserError(fatal.column("fault")[0].as_py()[1:])
        yield batch
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
