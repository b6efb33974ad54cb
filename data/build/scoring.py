"""Read and score one source on Daft: every row comes back in order, good or bad, with its scores."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import daft
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from daft.io.source import DataSource, DataSourceTask
from daft.recordbatch import RecordBatch

from data.clean.characters import Mask, char_mask, decode, encode, rows_with
from data.clean.hashing import NUM_HASHES
from data.clean.normalise import is_credit, normalise_pair
from data.clean.scores import SCORES, References, is_null, score_pairs
from data.cli import UserError
from data.sources.base import RAW, Part, Source
from data.sources.compressed import PACKED
from data.sources.io import (
    BLOCK_BYTES,
    LINE_FEED,
    TEXT,
    Offsets,
    Span,
    check_encoding,
    ends_with_returns,
    is_url,
    is_utf8,
    open_decompressed,
    resolve_path,
)

CLEANING_BATCH_ROWS = 16384
MAX_READAHEAD = CLEANING_BATCH_ROWS * max(8, 4 * (os.cpu_count() or 1))  # rows read and not yet taken back from Daft
PART_ROWS = 1 << 40  # more than a part has
READAHEAD_TIMEOUT = 500  # hundredths of a second; a reader that waited so long reads on
NUMBERS = {**dict.fromkeys(SCORES, pa.float32()), "en_key": pa.uint64(), "zh_key": pa.uint64()}
CLEANED_TYPE = pa.struct(
    [("en", TEXT), ("zh", TEXT), ("fault", TEXT), *NUMBERS.items(), ("signature", pa.binary(NUM_HASHES))]
)
PASSTHROUGH_COLUMNS = ("image", "file", "line", "sub", "row", "error")
READ_SCHEMA = pa.schema(
    [
        *RAW,
        ("row", pa.int64()),  # PART_ROWS times the part, and the 0-based number within it: the order to restore
        ("error", TEXT),  # null; in a part's last record "" or the reader's UserError, which Daft would wrap in text
    ]
)
consumed_rows = dict[str, int]()  # rows taken back in this process, by source: Daft itself would read whole files ahead


@dataclass(frozen=True)
class SourceTask(DataSourceTask):
    """The reader of one part of a source, or of the whole, as a Daft task."""

    source: Source
    root: str
    part: Part | None
    number: int  # of the part

    @property
    def schema(self) -> daft.Schema:
        """Raw pairs with their place."""
        return daft.Schema.from_pyarrow_schema(READ_SCHEMA)

    async def read(self) -> AsyncIterator[RecordBatch]:
        """Yield raw batches of at most CLEANING_BATCH_ROWS rows, then a record that says how reading ended."""
        row, name, first, message = 0, self.source.name, self.number * PART_ROWS, ""
        try:
            for batch in self.source.batches(self.root, self.part):
                while batch.num_rows:
                    for _ in range(READAHEAD_TIMEOUT):
                        if row - consumed_rows.get(name, row) < MAX_READAHEAD:
                            break
                        await asyncio.sleep(0.01)
                    part, batch = batch.slice(0, CLEANING_BATCH_ROWS), batch.slice(CLEANING_BATCH_ROWS)
                    numbers = pa.array(np.arange(first + row, first + row + part.num_rows))
                    row += part.num_rows
                    yield _read_batch([*part.columns, numbers, pa.nulls(part.num_rows, TEXT)])
        except UserError as error:
            message = str(error)
        record = {"en": "", "zh": "", "image": "", "file": 0, "line": 0, "sub": 0, "fault": ""}
        record |= {"row": first + row, "error": message}
        yield _read_batch([pa.array([record[field.name]], field.type) for field in READ_SCHEMA])


def _read_batch(columns: list[pa.Array]) -> RecordBatch:
    return RecordBatch.from_arrow_record_batches([pa.record_batch(columns, READ_SCHEMA)], READ_SCHEMA)


@dataclass(frozen=True)
class DaftSource(DataSource):
    """A source of pairs as a Daft data source."""

    source: Source
    root: str
    parts: Sequence[Part | None]

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def schema(self) -> daft.Schema:
        """Raw pairs with their place."""
        return daft.Schema.from_pyarrow_schema(READ_SCHEMA)

    async def get_tasks(self, pushdowns: object) -> AsyncIterator[DataSourceTask]:
        """Yield a task for each part."""
        for number, part in enumerate(self.parts):
            yield SourceTask(self.source, self.root, part, number)


def source_parts(source: Source, root: str) -> list[Part]:
    """Parts of about a block that can be read apart: lines of big files, and small files together."""
    parts, size = list[Part](), 0
    for index, group in enumerate(source.file_groups):
        if spans := cut_lines(root, group, source.encoding) if source.reads_spans else []:
            parts += [Part(index, index + 1, lines) for lines in spans]
            size = BLOCK_BYTES
            continue
        if not parts or size >= BLOCK_BYTES:
            parts, size = [*parts, Part(index, index)], 0
        parts[-1] = Part(parts[-1].start, index + 1)
        size += local_bytes(root, group) or BLOCK_BYTES
    return parts


def local_bytes(root: str, paths: tuple[str, ...]) -> int:
    """Size of the files that are on a disk here, an archive once."""
    targets = {resolve_path(root, path.partition("!")[0]) for path in paths}
    return sum(Path(target).stat().st_size for target in targets if not is_url(target))


def cut_lines(root: str, paths: tuple[str, ...], encoding: str) -> list[tuple[Span, ...]]:
    """Spans of about a block, each of the same lines in all `paths`; none where these are small or must be read whole.

    Only plain UTF-8 files on a disk are cut, and files side by side only where they have equally many lines.
    """
    check_encoding(paths[0], encoding, b"")
    if not is_utf8(encoding) or any("!" in p or is_url(p) or PACKED.search(p.lower()) for p in paths):
        return []
    ends = {path: _line_ends(root, path) for path in paths}
    if len({int(each[-1, 1]) for each in ends.values()}) > 1 or min(map(len, ends.values())) < 3:
        return []
    lines = ends[paths[0]][:-1, 1].tolist()
    spans = []
    for path, each in ends.items():
        starts = [_line_start(root, path, each, line) for line in lines]
        stops = [*starts[1:], int(each[-1, 0])]
        spans.append([Span(a, b, line + 1) for a, b, line in zip(starts, stops, lines, strict=True)])
    return list(zip(*spans, strict=True))


def _line_ends(root: str, path: str) -> Offsets:
    """[blocks + 1, 2]: bytes and lines up to the last line end of each block, from 0; one row where \r ends lines."""
    ends, size, lines, returns = [(0, 0)], 0, 0, None
    with open_decompressed(root, path) as stream:
        while data := stream.read(BLOCK_BYTES):
            returns = ends_with_returns(data.removesuffix(b"\r")) if returns is None else returns
            if returns:
                return np.zeros((1, 2), np.int64)
            lines += data.count(b"\n")
            if cut := data.rfind(b"\n") + 1:
                ends.append((size + cut, lines))
            size += len(data)
    if ends[-1][0] < size:  # the last line has no end
        ends[max(1, len(ends) - 1) :] = [(size, lines + 1)]
    return np.array(ends, np.int64)


def _line_start(root: str, path: str, ends: Offsets, line: int) -> int:
    """The byte where the line after `line` lines begins."""
    block = int(np.searchsorted(ends[:, 1], line))
    if ends[block, 1] == line:
        return int(ends[block, 0])
    (start, first), stop = ends[block - 1].tolist(), int(ends[block, 0])
    with open_decompressed(root, path) as stream:
        stream.seek(start)
        data = np.frombuffer(stream.read(stop - start), np.uint8)
    return int(start + np.flatnonzero(data == LINE_FEED)[line - first - 1] + 1)


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


def scored_batches(
    source: Source, root: str, references: References, parts: Sequence[Part | None] = (None,)
) -> Iterator[pa.RecordBatch]:
    """Run one source through Daft, whole or in parts; yield its scored rows in order on any runner."""

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(CLEANED_TYPE))
    def clean(en: daft.Series, zh: daft.Series, fault: daft.Series) -> pa.StructArray:
        english, chinese, faults = (column.to_arrow().cast(TEXT) for column in (en, zh, fault))
        return clean_batch(english, chinese, faults, source, references)

    frame = DaftSource(source, root, parts).read()
    frame = frame.with_column("clean", clean(frame["en"], frame["zh"], frame["fault"]))
    frame = frame.select(*PASSTHROUGH_COLUMNS, daft.col("clean").unnest())
    cut_files = {part.start for part in parts if part and part.spans}
    consumed_rows[source.name] = 0
    try:
        for batch in ordered_batches(frame.to_arrow_iter(), len(parts)):
            consumed_rows[source.name] += batch.num_rows
            if cut_files:
                cut_files -= set(pc.unique(batch["file"].filter(pc.equal(batch["fault"], ""))).to_pylist())
            yield batch
    finally:
        del consumed_rows[source.name]
    if cut_files:  # that have no sound row: a reader of whole files may know why
        for _ in source.read(root):
            pass


def ordered_batches(batches: Iterator[pa.RecordBatch], num_parts: int) -> Iterator[pa.RecordBatch]:
    """Rows of all parts by their `row` numbers, which a cluster hands back as they come, without `row` and `error`.

    Raises the UserError that a part ended with.
    """
    waiting, expected = dict[int, pa.RecordBatch](), 0
    for batch in batches:
        rows = batch.column("row").to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), batch.num_rows]
        for start, end in itertools.pairwise(edges):
            if end > start:
                waiting[int(rows[start])] = batch.slice(start, end - start)
        while (ready := waiting.pop(expected, None)) is not None:
            message = ready["error"][-1].as_py()
            if message:
                raise UserError(message)
            is_end = message is not None
            expected = (expected // PART_ROWS + 1) * PART_ROWS if is_end else expected + ready.num_rows
            if ready := ready.slice(0, ready.num_rows - is_end):
                yield ready.drop_columns(["row", "error"])
    if expected != num_parts * PART_ROWS:
        raise AssertionError(f"row {expected} never came back from the runner; rows {sorted(waiting)[:5]} did")
