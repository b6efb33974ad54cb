"""Tables by column names: Parquet files, workbooks, and Hugging Face data sets by id or as a local copy."""

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from python_calamine import CalamineError, CalamineWorkbook

from data.cli import UserError, one_line, panics_as_errors
from data.sources.base import PAIR_BATCH_ROWS, FileSource, Pair, PairSource, Source, pair_batches, raw_batch
from data.sources.delimited import column_indices
from data.sources.io import TEXT, open_decompressed, read_bytes
from data.sources.jsonl import record_pairs


@dataclass(frozen=True, kw_only=True)
class Parquet(FileSource):
    """Parquet files; a dotted name reaches into structs (`translation.en`), lists of strings pair by position."""

    en: str = "en"
    zh: str = "zh"
    image: str = ""

    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        """Yield row group by row group; nulls become empty sides."""
        names = [name for name in (self.en, self.zh, self.image) if name]
        heads = list(dict.fromkeys(name.split(".")[0] for name in names))
        with open_decompressed(root, path) as stream:
            try:
                file = pq.ParquetFile(stream)
                missing = [name for name in heads if name not in file.schema_arrow.names]
                if missing:
                    raise UserError(f"{path}: no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
                first = 1
                for batch in file.iter_batches(PAIR_BATCH_ROWS, columns=heads):
                    columns = [_column(batch, name, path) for name in names]
                    if all(map(_is_list, (columns[0].type, columns[1].type))):
                        records = enumerate(batch.to_pylist(), first)
                        yield from pair_batches(
                            (p for n, row in records for p in record_pairs(row, self.en, self.zh, self.image, n)), index
                        )
                    else:
                        texts = [_text(column, name, path) for column, name in zip(columns, names, strict=True)]
                        lines = np.arange(first, first + batch.num_rows, dtype=np.int64)
                        yield raw_batch(texts[0], texts[1], index, lines, image=texts[2] if self.image else None)
                    first += batch.num_rows
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _column(batch: pa.RecordBatch, dotted: str, path: str) -> pa.Array:
    head, *rest = dotted.split(".")
    column = batch.column(head)
    for key in rest:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(key) < 0:
            raise UserError(f"{path}: no column {dotted!r}; {head} is {column.type}")
        column = pa.compute.struct_field(column, key)
    return column


def _text(column: pa.Array, dotted: str, path: str) -> pa.Array:
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
class Xlsx(PairSource):
    """A sheet of an Excel or OpenDocument workbook: columns by header name, or by 1-based number without a header."""

    en: str | int = "en"
    zh: str | int = "zh"
    image: str | int = ""
    header: bool = True
    sheet: str = ""  # empty: the first

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a row that is not empty; `line` is the row's number in the sheet."""
        names = [name for name in (self.en, self.zh, self.image) if name]
        rows = ((n, row) for n, row in enumerate(self._rows(root, path), 1) if any(cell != "" for cell in row))
        first = next(rows, (1, []))[1] if self.header else None
        indices = column_indices(names, None if first is None else list(map(_cell, first)), f"{path}:1")
        for number, row in rows:
            cells = [_cell(row[index]) if index < len(row) else "" for index in indices]
            yield Pair(cells[0], cells[1], number, image=cells[2] if self.image else "")

    def _rows(self, root: str, path: str) -> list[list[object]]:
        content = read_bytes(root, path)
        try:
            with panics_as_errors():
                workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
                if self.sheet and self.sheet not in workbook.sheet_names:
                    raise UserError(f"{path}: no sheet {self.sheet!r}; it has {', '.join(workbook.sheet_names)[:200]}")
                sheet = self.sheet or workbook.sheet_names[0]
                return list(map(list, workbook.get_sheet_by_name(sheet).to_python(skip_empty_area=False)))
        except (CalamineError, OSError, RuntimeError, ValueError, IndexError) as error:
            raise UserError(f"{path}: not a readable workbook ({one_line(error)}); save it again as .xlsx") from error


def _cell(value: object) -> str:
    """A cell as a sheet shows it: 3.0 is 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True, kw_only=True)
class Hub(Source):
    """A Hugging Face data set by id, streamed, or the folder of a local copy; `rows` bounds what is read (0: all)."""

    id: str
    split: str = "train"
    config: str = ""
    revision: str = ""
    en: str = "translation.en"
    zh: str = "translation.zh"
    image: str = ""
    rows: int = 0
    files: tuple[str, ...] = ()  # filled in for a local copy, whose changes then show

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of a local copy, or the data set as one URL."""
        return self.files or (f"hub://{self.id}",)

    def expanded(self, root: str) -> Self:
        """The source with the files of its local copy, relative to the config's folder as every path."""
        folder = Path(root, self.id)
        files = tuple(str(path) for path in sorted(folder.rglob("*")) if path.is_file())
        return replace(self, files=files, id=str(folder) if folder.is_dir() else self.id)

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
        pairs = (pair for n, record in records for pair in record_pairs(record, self.en, self.zh, self.image, n))
        yield from pair_batches(pairs, 0)
