"""Tables by column names: Parquet and Arrow files, JSON mappings, and any Hugging Face data set by id."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.cli import UserError
from data.schema import TEXT, raw_batch
from data.sources.base import PAIR_BATCH_ROWS, FileSource, Pair, PairSource, Source, pair_batches
from data.sources.documents import load_json
from data.sources.io import open_decompressed
from data.sources.jsonl import string_list, value_at


@dataclass(frozen=True, kw_only=True)
class Parquet(FileSource):
    """Parquet files; a dotted name reaches into structs (`translation.en`)."""

    en: str = "en"
    zh: str = "zh"
    image: str = ""

    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Yield row group by row group; nulls become empty sides."""
        names = [name for name in (self.en, self.zh, self.image) if name]
        with open_decompressed(root, path) as stream:
            try:
                file = pq.ParquetFile(stream)
                missing = [name for name in names if name.split(".")[0] not in file.schema_arrow.names]
                if missing:
                    raise UserError(f"{path}: no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
                first = 1
                for batch in file.iter_batches(PAIR_BATCH_ROWS, columns=[name.split(".")[0] for name in names]):
                    texts = [_column(batch, name, path) for name in names]
                    lines = np.arange(first, first + batch.num_rows, dtype=np.int64)
                    yield raw_batch(texts[0], texts[1], index, lines, image=texts[2] if self.image else None)
                    first += batch.num_rows
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error


def _column(batch: pa.RecordBatch, dotted: str, path: str) -> pa.Array:
    head, *rest = dotted.split(".")
    column = batch.column(head)
    for key in rest:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(key) < 0:
            raise UserError(f"{path}: no column {dotted!r}; {head} is {column.type}")
        column = pa.compute.struct_field(column, key)
    try:
        text = column.cast(TEXT).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(f"{path}: column {dotted!r} is {column.type}, not text") from None
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:  # Parquet does not promise UTF-8: bad bytes become U+FFFD, which the cleaning rejects
        text = pa.array([b.decode("utf-8", "replace") for b in text.cast(pa.large_binary()).to_pylist()], TEXT)
    return text


@dataclass(frozen=True, kw_only=True)
class Mapping(PairSource):
    """A JSON object from English to Chinese (or the other way round, with `flipped`), as prompt plug-ins ship."""

    flipped: bool = False

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair an entry; `line` counts entries."""
        document = load_json(root, path, self.encoding)
        if not isinstance(document, dict):
            raise UserError(f"{path}: the top of the document is not a mapping; is this the right file?")
        for number, (key, value) in enumerate(document.items(), 1):
            yield self._pair(key, value, number)

    def _pair(self, key: str, value: object, number: int) -> Pair:
        if not isinstance(value, str):
            return Pair(key, "", number, fault="keys")
        return Pair(value, key, number) if self.flipped else Pair(key, value, number)


@dataclass(frozen=True, kw_only=True)
class Hub(Source):
    """A Hugging Face data set by id, streamed; `rows` bounds how much of it is read (0: all)."""

    id: str
    split: str = "train"
    config: str = ""
    revision: str = ""
    en: str = "translation.en"
    zh: str = "translation.zh"
    image: str = ""
    rows: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """The data set, as one URL."""
        return (f"hub://{self.id}",)

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield rows in the data set's order; `line` counts them."""
        del root
        from datasets import load_dataset

        try:
            data = load_dataset(
                self.id, self.config or None, split=self.split, streaming=True, revision=self.revision or None
            )
        except Exception as error:  # the hub client raises its own kinds for absent, gated and unreachable sets
            raise UserError(f"source {self.name}: data set {self.id!r} cannot be opened: {error}") from error
        records = enumerate(itertools.islice(data, self.rows) if self.rows else data, 1)
        yield from pair_batches((pair for number, record in records for pair in self._pairs(record, number)), 0)

    def _pairs(self, record: object, number: int) -> Iterator[Pair]:
        en, zh = string_list(value_at(record, self.en)), string_list(value_at(record, self.zh))
        image = "".join(string_list(value_at(record, self.image))[:1]) if self.image else ""
        if not en or len(en) != len(zh):
            yield Pair(" ".join(en), " ".join(zh), number, image=image, fault="keys" if not en else "unaligned_lines")
            return
        for sub, (a, b) in enumerate(zip(en, zh, strict=True), 1):
            yield Pair(a, b, number, sub=sub if len(en) > 1 else 0, image=image)
