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

from data.build.cache import GROUP, Scored
from data.build.selection import VALID, Verdicts
from data.schema import CORPUS

REPEATED = ["domain", "source", "license", "image"]  # columns worth a dictionary
TEXTS = ["en", "zh", "image", "file", "line", "sub"]


class Shards:
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
            room = self.limit - self.rows % self.limit
            if self._writer is None or room == self.limit:
                self.close()
                name = self.folder / f"part-{self.rows // self.limit:05d}.parquet"
                self._writer = pq.ParquetWriter(
                    name, CORPUS, compression="zstd", use_dictionary=REPEATED, write_statistics=REPEATED
                )
            self._writer.write_table(table.slice(0, room), row_group_size=GROUP)
            self.rows += min(room, table.num_rows)
            table = table.slice(room)

    def close(self) -> None:
        """Finish the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@dataclass(frozen=True)
class Written:
    """Counts of what was written, and the texts of the rows that the report shows."""

    train: dict[str, int]  # source -> rows
    valid: dict[str, int]
    texts: dict[int, dict[str, Any]]  # row -> place, en, zh


def write_corpus(folder: Path, scored: list[Scored], verdicts: Verdicts, rows_per_shard: int) -> Written:
    """Stream every source once: kept rows into shards, verdicts beside the scores, shown rows into memory."""
    train, valid = Shards(folder / "train", rows_per_shard), Shards(folder / "valid", rows_per_shard)
    shown = np.unique([row for rows in verdicts.ledger.worst.values() for _, row in rows]).astype(np.int64)
    written = Written({}, {}, {})
    valid_code = verdicts.ledger.code(VALID)
    with ThreadPoolExecutor(1) as pool:  # compresses one batch while the next is read and cut
        for number, part in enumerate(scored):
            row, before = int(verdicts.starts[number]), (train.rows, valid.rows)
            pending = pool.submit(_write_verdicts, part, verdicts, number)
            for batch in part.columns(TEXTS):
                codes = verdicts.codes[row : row + batch.num_rows]
                table = pa.Table.from_batches([batch])
                kept, held = (_rows(table.filter(pa.array(codes == code)), part) for code in (0, valid_code))
                inside = shown[(shown >= row) & (shown < row + batch.num_rows)]
                for at in inside:
                    written.texts[int(at)] = _shown(batch.slice(int(at) - row, 1).to_pylist()[0], part)
                row += batch.num_rows
                pending.result()
                valid.write(held)
                pending = pool.submit(train.write, kept)
            pending.result()
            written.train[part.source.name] = train.rows - before[0]
            written.valid[part.source.name] = valid.rows - before[1]
    train.close()
    valid.close()
    return written


def _rows(table: pa.Table, part: Scored) -> pa.Table:
    """Scored rows as corpus rows."""
    count, source = table.num_rows, part.source
    stems = pa.array([stem(path) for path in source.paths])
    place = [stems.take(table["file"].combine_chunks()), pc.cast(table["line"], pa.string())]
    ids = pc.binary_join_element_wise(*place, ":")
    cut = pc.binary_join_element_wise(ids, pc.cast(table["sub"], pa.string()), "#")
    ids = pc.if_else(pc.equal(table["sub"], 0), ids, cut)
    constant = {
        name: pa.repeat(value, count)
        for name, value in (("domain", source.domain), ("source", source.mark), ("license", source.license))
    }
    columns = {"en": table["en"], "zh": table["zh"], **constant, "id": ids, "image": table["image"]}
    return pa.table({name: columns[name] for name in CORPUS.names}).cast(CORPUS)


def stem(path: str) -> str:
    """A file's name without folders, compression and language suffixes: "caption/3am.train.en" is "3am.train"."""
    name = re.split(r"[/\\!]", path)[-1]
    return re.sub(r"(?:\.(?:gz|bz2|xz|zst|zip|tsv|csv|txt|jsonl?|yaml|srt|ass|en|zh|tmx|sgm|parquet))+$", "", name)


def _shown(row: dict[str, Any], part: Scored) -> dict[str, Any]:
    return {"place": f"{part.source.paths[row['file']]}:{row['line']}", "en": row["en"][:400], "zh": row["zh"][:400]}


def _write_verdicts(part: Scored, verdicts: Verdicts, number: int) -> None:
    """One column beside the scores: the reason of every row ("" kept, "valid" held out)."""
    codes = verdicts.codes[verdicts.starts[number] : verdicts.starts[number + 1]]
    column = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(verdicts.ledger.reasons))
    pq.write_table(pa.table({"reason": column}), part.rows.with_name("verdicts.parquet"), compression="zstd")
