"""Writing the kept rows: train and valid as Parquet shards (zstd) with fixed numbers of rows."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.build.cache import ROW_GROUP_SIZE, ScoredSource
from data.build.selection import VALID, Selection
from data.schema import CORPUS

SHARD_DICTIONARY_COLUMNS = ["domain", "source", "license", "image"]  # columns worth a dictionary
SOURCE_COLUMNS = ["en", "zh", "image", "file", "line", "sub"]


class ShardWriter:
    """A folder of Parquet files of `limit` rows each; closed files are whole."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Write into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit = folder, limit
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Append rows, cutting exactly at the limit."""
        while table.num_rows:
            rows_left = self.limit - self.rows % self.limit
            if self._writer is None or rows_left == self.limit:
                self.close()
                name = self.folder / f"part-{self.rows // self.limit:05d}.parquet"
                self._writer = pq.ParquetWriter(
                    name,
                    CORPUS,
                    compression="zstd",
                    use_dictionary=SHARD_DICTIONARY_COLUMNS,
                    write_statistics=SHARD_DICTIONARY_COLUMNS,
                )
            self._writer.write_table(table.slice(0, rows_left), row_group_size=ROW_GROUP_SIZE)
            self.rows += min(rows_left, table.num_rows)
            table = table.slice(rows_left)

    def close(self) -> None:
        """Finish the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@dataclass(frozen=True)
class WrittenCorpus:
    """Counts of what was written, and the texts of the rows that the report shows."""

    train: dict[str, int]  # source -> rows
    valid: dict[str, int]
    example_texts: dict[int, dict[str, Any]]  # row -> place, en, zh


def write_corpus(
    folder: Path, scored_sources: list[ScoredSource], selection: Selection, rows_per_shard: int
) -> WrittenCorpus:
    """Stream every source once: kept rows into shards, verdicts beside the scores, shown rows into memory."""
    train, valid = ShardWriter(folder / "train", rows_per_shard), ShardWriter(folder / "valid", rows_per_shard)
    example_rows = np.unique([row for rows in selection.reject_log.examples.values() for _, row in rows]).astype(
        np.int64
    )
    written = WrittenCorpus({}, {}, {})
    valid_code = selection.reject_log.code(VALID)
    with ThreadPoolExecutor(1) as pool:  # compresses one batch while the next is read and cut
        for number, scored_source in enumerate(scored_sources):
            row, before = int(selection.starts[number]), (train.rows, valid.rows)
            pending = pool.submit(_write_verdicts, scored_source, selection, number)
            for batch in scored_source.iter_columns(SOURCE_COLUMNS):
                codes = selection.codes[row : row + batch.num_rows]
                table = pa.Table.from_batches([batch])
                kept, valid_rows = (
                    _corpus_rows(table.filter(pa.array(codes == code)), scored_source) for code in (0, valid_code)
                )
                inside = example_rows[(example_rows >= row) & (example_rows < row + batch.num_rows)]
                for example_row in inside:
                    written.example_texts[int(example_row)] = _example_text(
                        batch.slice(int(example_row) - row, 1).to_pylist()[0], scored_source
                    )
                row += batch.num_rows
                pending.result()
                valid.write(valid_rows)
                pending = pool.submit(train.write, kept)
            pending.result()
            written.train[scored_source.source.name] = train.rows - before[0]
            written.valid[scored_source.source.name] = valid.rows - before[1]
    train.close()
    valid.close()
    return written


def _corpus_rows(table: pa.Table, scored_source: ScoredSource) -> pa.Table:
    """Scored rows as corpus rows."""
    count, source = table.num_rows, scored_source.source
    stems = pa.array([file_stem(path) for path in source.paths])
    place = [stems.take(table["file"].combine_chunks()), pc.cast(table["line"], pa.string())]
    ids = pc.binary_join_element_wise(*place, ":")
    cut = pc.binary_join_element_wise(ids, pc.cast(table["sub"], pa.string()), "#")
    ids = pc.if_else(pc.equal(table["sub"], 0), ids, cut)
    constant = {
        name: pa.repeat(value, count)
        for name, value in (("domain", source.domain), ("source", source.source_label), ("license", source.license))
    }
    columns = {"en": table["en"], "zh": table["zh"], **constant, "id": ids, "image": table["image"]}
    return pa.table({name: columns[name] for name in CORPUS.names}).cast(CORPUS)


def file_stem(path: str) -> str:
    """A file's name without folders, compression and language suffixes: "caption/3am.train.en" is "3am.train"."""
    name = re.split(r"[/\\!]", path)[-1]
    return re.sub(r"(?:\.(?:gz|bz2|xz|zst|zip|tsv|csv|txt|jsonl?|yaml|srt|ass|en|zh|tmx|sgm|parquet))+$", "", name)


def _example_text(row: dict[str, Any], scored_source: ScoredSource) -> dict[str, Any]:
    return {
        "place": f"{scored_source.source.paths[row['file']]}:{row['line']}",
        "en": row["en"][:400],
        "zh": row["zh"][:400],
    }


def _write_verdicts(scored_source: ScoredSource, selection: Selection, number: int) -> None:
    """One column beside the scores: the reason of every row ("" kept, "valid" held out)."""
    codes = selection.codes[selection.starts[number] : selection.starts[number + 1]]
    column = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(selection.reject_log.reasons))
    pq.write_table(
        pa.table({"reason": column}), scored_source.rows_path.with_name("verdicts.parquet"), compression="zstd"
    )
