"""The store of scored rows: one Parquet file a source, whole or absent, reused while its origins stand unchanged."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.build.config import FORMATS
from data.build.scoring import scored_batches
from data.clean.scores import Yardstick
from data.cli import UserError
from data.sources.base import Source
from data.sources.io import resolve

GROUP = 65536  # rows a row group
REPEATED = ["image", "fault"]  # columns worth a dictionary
SIMILARITY = "similarity"  # folder of sentence similarities beside the rows


@dataclass(frozen=True)
class Input:
    """One file that was read."""

    path: str
    bytes: int
    sha256: str  # "" for a URL


@dataclass(frozen=True)
class Scored:
    """One finished source: where its rows are, and what they came from."""

    source: Source
    rows: Path
    count: int
    inputs: tuple[Input, ...]
    seconds: float
    reused: bool

    def columns(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns, in row order."""
        with pq.ParquetFile(self.rows) as file:
            yield from file.iter_batches(GROUP, columns=names)


def score_source(source: Source, root: str, folder: Path, yardstick: Yardstick) -> Scored:
    """The scored rows of `source` in `folder`: what a killed build finished is reused, else it is built and renamed."""
    done = folder / source.name
    key = _key(source, root, yardstick)
    if (old := _finished(done, source, key)) is not None:
        return old
    started = time.monotonic()
    partial = folder / f"{source.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = _write(source, root, partial / "rows.parquet", yardstick)
    inputs = tuple(describe(root, path) for path in source.paths)
    seconds = round(time.monotonic() - started, 3)
    note = {
        "key": key,
        "count": count,
        "seconds": seconds,
        "inputs": [asdict(i) for i in inputs],
    }
    (partial / "done.json").write_text(json.dumps(note, ensure_ascii=False, indent=1), encoding="utf-8")
    if (done / SIMILARITY).exists():
        (done / SIMILARITY).replace(partial / SIMILARITY)  # costly, and checked against the texts before it is used
    shutil.rmtree(done, ignore_errors=True)
    partial.replace(done)
    return Scored(source, done / "rows.parquet", count, inputs, seconds, reused=False)


def _write(source: Source, root: str, path: Path, yardstick: Yardstick) -> int:
    """Stream the scored rows into one file with row groups of GROUP rows."""
    count, held = 0, list[pa.RecordBatch]()
    writer: pq.ParquetWriter | None = None
    with tqdm(desc=source.name, unit=" rows", unit_scale=True, leave=False, mininterval=0.5) as bar:
        try:
            for batch in scored_batches(source, root, yardstick):
                writer = writer or pq.ParquetWriter(
                    path, batch.schema, compression="zstd", compression_level=1, use_dictionary=REPEATED,
                    write_statistics=REPEATED,  # of texts they only cost
                )  # fmt: skip
                held.append(batch)
                count += batch.num_rows
                bar.update(batch.num_rows)
                if sum(b.num_rows for b in held) >= GROUP:
                    held = _flush(writer, held)
            if writer is None:
                raise UserError(f"source {source.name}: no rows in {', '.join(source.paths)}; is the file empty?")
            if held:
                writer.write_table(pa.Table.from_batches(held), row_group_size=GROUP)
        finally:
            if writer:
                writer.close()
    return count


def _flush(writer: pq.ParquetWriter, held: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Write full row groups, return the rest."""
    table = pa.Table.from_batches(held)
    ready = table.num_rows // GROUP * GROUP
    writer.write_table(table.slice(0, ready), row_group_size=GROUP)
    rest: list[pa.RecordBatch] = table.slice(ready).to_batches()
    return rest


def _finished(done: Path, source: Source, key: str) -> Scored | None:
    try:
        note = json.loads((done / "done.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if note.get("key") != key:
        return None
    inputs = tuple(Input(**i) for i in note["inputs"])
    return Scored(source, done / "rows.parquet", note["count"], inputs, note["seconds"], reused=True)


def _key(source: Source, root: str, yardstick: Yardstick) -> str:
    """What the scored rows depend on: the source's config, the size and time of its files, and our own code."""
    formats = {kind: name for name, kind in FORMATS.items()}
    parts: dict[str, Any] = {"format": formats[type(source)], "config": asdict(source), "code": code_sha256()}
    parts["benchmarks"] = [yardstick.sha256, yardstick.near]
    parts["files"] = [_stat(root, path) for path in source.paths]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Hash of the files that decide what a scored row is."""
    package = Path(__file__).parents[1]
    files = [*package.glob("sources/*.py"), *package.glob("clean/*.py")]
    files = [file for file in files if file.name != "rules.py"] + [package / "schema.py", package / "build/scoring.py"]
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()


def _stat(root: str, path: str) -> list[Any]:
    if path.startswith("hub://"):
        return [path, None, None]
    target = resolve(root, path.partition("!")[0])
    if "://" in target or "::" in target:
        try:
            info = fsspec.core.url_to_fs(target)
            found = info[0].info(info[1])
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{path}: cannot be opened: {error}; check the URL") from error
        return [path, found.get("size"), found.get("ETag") or found.get("mtime")]
    try:
        found_stat = Path(target).stat()
    except OSError:
        raise UserError(f"{path}: no such file (looked for {target}); mend the path in the config") from None
    return [path, found_stat.st_size, found_stat.st_mtime_ns]


def describe(root: str, path: str) -> Input:
    """Size and hash of one input file."""
    if path.startswith("hub://"):
        return Input(path, 0, "")
    target = resolve(root, path.partition("!")[0])
    if "://" in target or "::" in target:
        return Input(path, int(_stat(root, path)[1] or 0), "")
    with Path(target).open("rb") as stream:
        return Input(path, Path(target).stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())
