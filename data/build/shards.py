"""Write the kept rows as Parquet shards (zstd) of a fixed number of rows, and the verdicts beside the scores."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.build.cache import ROW_GROUP_SIZE, ScoredSource
from data.build.selection import VALID, Selection

CORPUS = pa.schema([(name, pa.string()) for name in ("en", "zh", "domain", "source", "license", "id", "image")])
SHARD_DICTIONARY_COLUMNS = ["domain", "source", "license", "image"]
SOURCE_COLUMNS = ["en", "zh", "image", "file", "line", "sub"]
EXAMPLE_LENGTH = 400  # characters of a text in the report


class ShardWriter:
    """A new folder of Parquet files of `limit` rows each; closed files are whole."""

    def __init__(self, folder: Path, limit: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
        folder.mkdir(parents=True)
        self.folder, self.limit = folder, limit
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Append rows, cutting exactly at the limit."""
        while table.num_rows:
            rows_left = self.limit - self.rows % self.limit
            if self._writer is None or rows_left == self.limit:
                self.close()
                self._writer = pq.ParquetWriter(
                    self.folder / f"part-{self.rows // self.limit:05d}.parquet", CORPUS, compression="zstd",
                    use_dictionary=SHARD_DICTIONARY_COLUMNS, write_statistics=SHARD_DICTIONARY_COLUMNS,
                )  # fmt: skip
            self._writer.write_table(table.slice(0, rows_left), row_group_size=ROW_GROUP_SIZE)
            self.rows += min(rows_left, table.num_rows)
            table = table.slice(rows_left)

    def close(self) -> None:
        """Finish the open file."""
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
    """Stream every source once: kept rows into shards, verdicts beside the scores, examples into memory."""
    train, valid = ShardWriter(folder / "train", rows_per_shard), ShardWriter(folder / "valid", rows_per_shard)
    examples = np.unique([row for rows in selection.reject_log.examples.values() for _, row in rows]).astype(np.int64)
    counts, example_texts = dict[str, tuple[int, int]](), dict[int, dict[str, Any]]()
    for number, scored_source in enumerate(scored_sources):
        before = train.rows, valid.rows
        example_texts |= _write_source(scored_source, number, selection, examples, train, valid)
        counts[scored_source.source.name] = train.rows - before[0], valid.rows - before[1]
    train.close()
    valid.close()
    train_rows, valid_rows = ({name: count[i] for name, count in counts.items()} for i in range(2))
    return WrittenCorpus(train_rows, valid_rows, example_texts)


def _write_source(
    scored_source: ScoredSource,
    number: int,
    selection: Selection,
    examples: npt.NDArray[np.int64],
    train: ShardWriter,
    valid: ShardWriter,
) -> dict[int, dict[str, Any]]:
    """Write source `number`; return the texts of those of its rows that are `examples`."""
    texts, row = dict[int, dict[str, Any]](), selection.spans[number].start
    with ThreadPoolExecutor(1) as pool:  # compresses one batch while the next is read and cut
        pending = pool.submit(_write_verdicts, scored_source, selection, number)
        for batch in scored_source.iter_columns(SOURCE_COLUMNS):
            codes, table = selection.codes[row : row + batch.num_rows], pa.Table.from_batches([batch])
            kept, held_out = (
                _corpus_rows(table.filter(pa.array(codes == code)), scored_source)
                for code in (0, selection.reject_log.code(VALID))
            )
            for example in examples[(examples >= row) & (examples < row + batch.num_rows)].tolist():
                texts[example] = _example_text(table.slice(example - row, 1).to_pylist()[0], scored_source)
            row += batch.num_rows
            pending.result()
            valid.write(held_out)
            pending = pool.submit(train.write, kept)
        pending.result()
    return texts


def _corpus_rows(table: pa.Table, scored_source: ScoredSource) -> pa.Table:
    """Scored rows as corpus rows; an id is FILE:LINE, or FILE:LINE#PART of a record that gave several pairs."""
    source = scored_source.source
    stems = pa.array([file_stem(path) for path in source.paths]).take(table["file"].combine_chunks())
    ids = pc.binary_join_element_wise(stems, pc.cast(table["line"], pa.string()), ":")
    part_ids = pc.binary_join_element_wise(ids, pc.cast(table["sub"], pa.string()), "#")
    columns = {
        "en": table["en"],
        "zh": table["zh"],
        "domain": pa.repeat(source.domain, table.num_rows),
        "source": pa.repeat(source.source_label, table.num_rows),
        "license": pa.repeat(source.license, table.num_rows),
        "id": pc.if_else(pc.equal(table["sub"], 0), ids, part_ids),
        "image": table["image"],
    }
    return pa.table(columns).cast(CORPUS)


def file_stem(path: str) -> str:
    """A file's name without folders, compression and language suffixes: "caption/3am.train.en" is "3am.train"."""
    name = re.split(r"[/\\!]", path)[-1]
    return re.sub(r"(?:\.(?:gz|bz2|xz|zst|zip|tsv|csv|txt|jsonl?|yaml|srt|ass|en|zh|tmx|sgm|parquet))+$", "", name)


def _example_text(row: dict[str, Any], scored_source: ScoredSource) -> dict[str, Any]:
    return {
        "place": f"{scored_source.source.paths[row['file']]}:{row['line']}",
        "en": row["en"][:EXAMPLE_LENGTH],
        "zh": row["zh"][:EXAMPLE_LENGTH],
    }


def _write_verdicts(scored_source: ScoredSource, selection: Selection, number: int) -> None:
    """One column beside the scores: the reason of every row ("" kept, "valid" held out)."""
    codes = selection.codes[selection.spans[number]]
    column = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(selection.reject_log.reasons))
    path = scored_source.rows_path.with_name("verdicts.parquet")
    pq.write_table(pa.table({"reason": column}), path, compression="zstd")
