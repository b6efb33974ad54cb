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

from data.clean.characters import among
from data.clean.codepoints import Mask, Text, decode, encode, holding, replaced, rows_of
from data.clean.dedup import HASHES
from data.clean.normalise import is_credit, normalised, spoken_rows, without_speakers
from data.clean.scores import SCORES, Yardstick, scored
from data.cli import UserError
from data.schema import RAW, TEXT
from data.sources.base import Source
from data.sources.subtitles import continued

MORSEL = 16384  # rows a batch of the cleaning
CLEANED = pa.struct(
    [("en", TEXT), ("zh", TEXT), ("fault", TEXT)]
    + [(name, pa.float32()) for name in SCORES]
    + [("en_key", pa.uint64()), ("zh_key", pa.uint64()), ("signature", pa.binary(HASHES))]
)
AHEAD = MORSEL * max(8, 4 * (os.cpu_count() or 1))  # rows that a reader may be ahead of what was taken back from Daft
PATIENCE = 500  # hundredths of a second that a reader waits at most before it reads on all the same
taken = dict[str, int]()  # rows taken back in this process, by source: Daft itself would read whole files ahead
PASSED = ("image", "file", "line", "sub", "row")
READ = RAW.append(pa.field("row", pa.int64()))  # 0-based number of the row within its source: the order to restore


@dataclass(frozen=True)
class Reading(DataSourceTask):
    """Daft's view of one source: its reader, run once, in order."""

    source: Source
    root: str

    @property
    def schema(self) -> daft.Schema:
        """Raw pairs with their place."""
        return daft.Schema.from_pyarrow_schema(READ)

    async def read(self) -> AsyncIterator[RecordBatch]:
        """Yield raw batches; a mistake of the user travels as a row, so that every runner brings it home."""
        done, read, name = 0, self.source.read(self.root), self.source.name
        try:
            for batch in map(continued, read) if self.source.join_lines else read:
                numbers = pa.array(np.arange(done, done + batch.num_rows, dtype=np.int64))
                numbered = pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=READ)
                for start in range(0, batch.num_rows, MORSEL):
                    for _ in range(PATIENCE):
                        if done + start - taken.get(name, done) < AHEAD:
                            break
                        await asyncio.sleep(0.01)
                    yield RecordBatch.from_arrow_record_batches([numbered.slice(start, MORSEL)], READ)
                done += batch.num_rows
        except UserError as error:
            row = dict.fromkeys(READ.names, 0) | {"en": "", "zh": "", "image": "", "fault": f"!{error}", "row": done}
            yield RecordBatch.from_arrow_record_batches([pa.RecordBatch.from_pylist([row], READ)], READ)


@dataclass(frozen=True)
class Rows(DataSource):
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
        return daft.Schema.from_pyarrow_schema(READ)

    async def get_tasks(self, pushdowns: object) -> AsyncIterator[DataSourceTask]:
        """One task: the order of rows is the order of the files."""
        yield Reading(self.source, self.root)


def cleaned(en: pa.Array, zh: pa.Array, fault: pa.Array, source: Source, yardstick: Yardstick) -> pa.StructArray:
    """Normal forms, scores and keys of a batch; rows in = rows out."""
    raw = decode(en), decode(zh)
    fault = _blamed(fault, holding(raw[0], among("\ufffd")) | holding(raw[1], among("\ufffd")), "bad_utf8")
    if source.speakers:
        fault = _blamed(fault, np.asarray(is_credit(en, zh)), "credit")
    english = normalised(raw[0], chinese=False, simplify=False, spaces="keep")
    chinese = normalised(raw[1], chinese=True, simplify=source.simplify, spaces=source.spaces)
    if source.speakers:
        english, chinese = _without_speakers(english, chinese, source)
    table = scored(english, chinese, yardstick)
    signature = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(HASHES), len(en), [None, pa.py_buffer(np.ascontiguousarray(table.pop("signature")))]
    )
    numbers = [pa.array(table[f.name], f.type) for f in list(CLEANED)[3:-1]]
    values = [encode(english), encode(chinese), fault, *numbers, signature]
    return pa.StructArray.from_arrays(values, fields=list(CLEANED))


def _blamed(fault: pa.Array, rows: Mask, reason: str) -> pa.Array:
    """`fault` with `reason` for those of `rows` that have none yet."""
    return pc.if_else(pc.and_(pc.equal(fault, ""), pa.array(rows)), reason, fault) if rows.any() else fault


def _without_speakers(english: Text, chinese: Text, source: Source) -> tuple[Text, Text]:
    """Strip what only some rows have from these rows alone, and settle their spaces again."""
    rows = np.flatnonzero(spoken_rows(english, chinese))
    if not len(rows):
        return english, chinese
    en, zh = without_speakers(encode(rows_of(english, rows)), encode(rows_of(chinese, rows)))
    return (
        replaced(english, rows, normalised(decode(en), chinese=False, simplify=False, spaces="keep")),
        replaced(chinese, rows, normalised(decode(zh), chinese=True, simplify=False, spaces=source.spaces)),
    )


def scored_batches(source: Source, root: str, yardstick: Yardstick) -> Iterator[pa.RecordBatch]:
    """Run one source through Daft and yield its scored rows in order, whatever the number of threads."""

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(CLEANED))
    def clean(en: daft.Series, zh: daft.Series, fault: daft.Series) -> pa.StructArray:
        return cleaned(
            en.to_arrow().cast(TEXT), zh.to_arrow().cast(TEXT), fault.to_arrow().cast(TEXT), source, yardstick
        )

    frame = Rows(source, root).read()
    frame = frame.with_column("clean", clean(frame["en"], frame["zh"], frame["fault"]))
    frame = frame.select(*PASSED, daft.col("clean").unnest())
    taken[source.name] = 0
    for batch in in_order(frame.to_arrow_iter()):
        taken[source.name] += batch.num_rows
        fatal = batch.filter(pc.starts_with(batch.column("fault"), "!"))
        if fatal.num_rows:
            raise UserError(fatal.column("fault")[0].as_py()[1:])
        yield batch
    del taken[source.name]


def in_order(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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
