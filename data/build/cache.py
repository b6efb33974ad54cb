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
from data.clean.scores import References
from data.cli import UserError
from data.sources.base import Source
from data.sources.io import resolve_path

ROW_GROUP_SIZE = 65536  # rows a row group
CACHE_DICTIONARY_COLUMNS = ["image", "fault"]  # columns worth a dictionary
SIMILARITY_FOLDER = "similarity"  # folder of sentence similarities beside the rows


@dataclass(frozen=True)
class SourceFile:
    """One file that was read."""

    path: str
    bytes: int
    sha256: str  # "" for a URL


@dataclass(frozen=True)
class ScoredSource:
    """One finished source: where its rows are, and what they came from."""

    source: Source
    rows_path: Path
    num_rows: int
    inputs: tuple[SourceFile, ...]
    seconds: float
    reused: bool

    def iter_columns(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns, in row order."""
        with pq.ParquetFile(self.rows_path) as file:
            yield from file.iter_batches(ROW_GROUP_SIZE, columns=names)


def score_source(source: Source, root: str, folder: Path, references: References) -> ScoredSource:
    """The scored rows of `source` in `folder`: what a killed build finished is reused, else it is built and renamed."""
    done = folder / source.name
    key = _cache_key(source, root, references)
    if (old := _load_cached(done, source, key)) is not None:
        return old
    started = time.monotonic()
    partial = folder / f"{source.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = _write(source, root, partial / "rows.parquet", references)
    inputs = tuple(describe_file(root, path) for path in source.paths)
    seconds = round(time.monotonic() - started, 3)
    manifest = {
        "key": key,
        "count": count,
        "seconds": seconds,
        "inputs": [asdict(i) for i in inputs],
    }
    (partial / "done.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    if (done / SIMILARITY_FOLDER).exists():
        (done / SIMILARITY_FOLDER).replace(
            partial / SIMILARITY_FOLDER
        )  # costly, and checked against the texts before it is used
    shutil.rmtree(done, ignore_errors=True)
    partial.replace(done)
    return ScoredSource(source, done / "rows.parquet", count, inputs, seconds, reused=False)


def _write(source: Source, root: str, path: Path, references: References) -> int:
    """Stream the scored rows into one file with row groups of GROUP rows."""
    count, pending = 0, list[pa.RecordBatch]()
    writer: pq.ParquetWriter | None = None
    with tqdm(desc=source.name, unit=" rows", unit_scale=True, leave=False, mininterval=0.5) as bar:
        try:
            for batch in scored_batches(source, root, references):
                writer = writer or pq.ParquetWriter(
                    path, batch.schema, compression="zstd", compression_level=1,
                    use_dictionary=CACHE_DICTIONARY_COLUMNS,
                    write_statistics=CACHE_DICTIONARY_COLUMNS,  # of texts they only cost
                )  # fmt: skip
                pending.append(batch)
                count += batch.num_rows
                bar.update(batch.num_rows)
                if sum(b.num_rows for b in pending) >= ROW_GROUP_SIZE:
                    pending = _flush(writer, pending)
            if writer is None:
                raise UserError(f"source {source.name}: no rows in {', '.join(source.paths)}; is the file empty?")
            if pending:
                writer.write_table(pa.Table.from_batches(pending), row_group_size=ROW_GROUP_SIZE)
        finally:
            if writer:
                writer.close()
    return count


def _flush(writer: pq.ParquetWriter, pending: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Write full row groups, return the rest."""
    table = pa.Table.from_batches(pending)
    ready = table.num_rows // ROW_GROUP_SIZE * ROW_GROUP_SIZE
    writer.write_table(table.slice(0, ready), row_group_size=ROW_GROUP_SIZE)
    rest: list[pa.RecordBatch] = table.slice(ready).to_batches()
    return rest


def _load_cached(done: Path, source: Source, key: str) -> ScoredSource | None:
    try:
        manifest = json.loads((done / "done.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if manifest.get("key") != key:
        return None
    inputs = tuple(SourceFile(**i) for i in manifest["inputs"])
    return ScoredSource(source, done / "rows.parquet", manifest["count"], inputs, manifest["seconds"], reused=True)


def _cache_key(source: Source, root: str, references: References) -> str:
    """What the scored rows depend on: the source's config, the size and time of its files, and our own code."""
    formats = {kind: name for name, kind in FORMATS.items()}
    parts: dict[str, Any] = {"format": formats[type(source)], "config": asdict(source), "code": code_sha256()}
    parts["benchmarks"] = [references.sha256, references.needs_signatures]
    parts["files"] = [_file_state(root, path) for path in source.paths]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Hash of the files that decide what a scored row is."""
    package = Path(__file__).parents[1]
    files = [*package.glob("sources/*.py"), *package.glob("clean/*.py")]
    files = [file for file in files if file.name != "rules.py"] + [package / "schema.py", package / "build/scoring.py"]
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()


def _file_state(root: str, path: str) -> list[Any]:
    if path.startswith("hub://"):
        return [path, None, None]
    target = resolve_path(root, path.partition("!")[0])
    if "://" in target or "::" in target:
        try:
            info = fsspec.core.url_to_fs(target)
            details = info[0].info(info[1])
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{path}: cannot be opened: {error}; check the URL") from error
        return [path, details.get("size"), details.get("ETag") or details.get("mtime")]
    try:
        found_stat = Path(target).stat()
    except OSError:
        raise UserError(f"{path}: no such file (looked for {target}); mend the path in the config") from None
    return [path, found_stat.st_size, found_stat.st_mtime_ns]


def describe_file(root: str, path: str) -> SourceFile:
    """Size and hash of one input file."""
    if path.startswith("hub://"):
        return SourceFile(path, 0, "")
    target = resolve_path(root, path.partition("!")[0])
    if "://" in target or "::" in target:
        return SourceFile(path, int(_file_state(root, path)[1] or 0), "")
    with Path(target).open("rb") as stream:
        return SourceFile(path, Path(target).stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())
