"""The cache of scored rows: one Parquet file a source, whole or absent, reused while its inputs stand unchanged."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import daft
import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.build.config import FORMATS
from data.build.scoring import scored_batches, source_parts
from data.clean.scores import References
from data.cli import UserError
from data.files import atomic_folder, write_json
from data.sources.base import Source
from data.sources.io import is_url, resolve_path

ROW_GROUP_SIZE = 65536  # rows
CACHE_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["image", "fault"],
    "write_statistics": ["image", "fault"],  # of texts they only cost
}
MIN_SIDES, SWAPPED_SHARE = 20, 0.8  # rows with text, and the share of them, that show swapped columns
SIMILARITY_FOLDER = "similarity"  # of sentence similarities, beside the rows


@dataclass(frozen=True)
class SourceFile:
    """One file that was read."""

    path: str
    bytes: int
    sha256: str  # "" for a URL


@dataclass(frozen=True)
class ScoredSource:
    """One finished source: where its rows are, and which files they came from."""

    source: Source
    rows_path: Path
    num_rows: int
    inputs: tuple[SourceFile, ...]
    seconds: float

    def iter_columns(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns, in row order."""
        with pq.ParquetFile(self.rows_path) as file:
            yield from file.iter_batches(ROW_GROUP_SIZE, columns=names)


def score_source(source: Source, root: str, folder: Path, references: References) -> ScoredSource:
    """The scored rows of `source` in `folder`, reused where a former build finished them and nothing has changed."""
    done, key = folder / source.name, _cache_key(source, root, references)
    manifest = _read_manifest(done)
    if manifest.get("key") != key:
        started = time.monotonic()
        with atomic_folder(done) as partial:
            partial.mkdir(parents=True)
            count = _write_rows(source, root, partial / "rows.parquet", references)
            check_sides(source, partial / "rows.parquet")
            inputs = [asdict(describe_file(root, path)) for path in source.paths]
            seconds = round(time.monotonic() - started, 3)
            manifest = {"key": key, "count": count, "seconds": seconds, "inputs": inputs}
            write_json(manifest, partial / "done.json")
            if (done / SIMILARITY_FOLDER).exists():  # costly, and checked against the texts before it is used
                shutil.copytree(done / SIMILARITY_FOLDER, partial / SIMILARITY_FOLDER, copy_function=os.link)
    files = tuple(SourceFile(**file) for file in manifest["inputs"])
    return ScoredSource(source, done / "rows.parquet", manifest["count"], files, manifest["seconds"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "done.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write_rows(source: Source, root: str, path: Path, references: References) -> int:
    """Stream the scored rows into one file with row groups of ROW_GROUP_SIZE; return how many."""
    count, pending = 0, list[pa.RecordBatch]()
    is_cluster = daft.runners.get_or_create_runner().name == "ray"  # on one machine the cleaning has all cores anyway
    parts = source_parts(source, root) if is_cluster else [None]
    writer: pq.ParquetWriter | None = None
    with tqdm(desc=source.name, unit=" rows", unit_scale=True, leave=False, mininterval=0.5, disable=None) as bar:
        try:
            for batch in scored_batches(source, root, references, parts):
                writer = writer or pq.ParquetWriter(path, batch.schema, **CACHE_PARQUET)
                pending.append(batch)
                count += batch.num_rows
                bar.update(batch.num_rows)
                if sum(b.num_rows for b in pending) >= ROW_GROUP_SIZE:
                    pending = _write_full_groups(writer, pending)
            if writer is None:
                raise UserError(f"source {source.name}: no rows in {', '.join(source.paths)}; is the file empty?")
            if pending:
                writer.write_table(pa.Table.from_batches(pending), row_group_size=ROW_GROUP_SIZE)
        finally:
            if writer:
                writer.close()
    return count


def _write_full_groups(writer: pq.ParquetWriter, pending: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Write full row groups, return the rest."""
    table = pa.Table.from_batches(pending)
    ready = table.num_rows // ROW_GROUP_SIZE * ROW_GROUP_SIZE
    writer.write_table(table.slice(0, ready), row_group_size=ROW_GROUP_SIZE)
    rest: list[pa.RecordBatch] = table.slice(ready).to_batches()
    return rest


def check_sides(source: Source, rows_path: Path) -> None:
    """Raise UserError where the first rows have Chinese on the English side and English on the Chinese side."""
    with pq.ParquetFile(rows_path) as file:
        batch = next(file.iter_batches(ROW_GROUP_SIZE, columns=["en_chars", "zh_chars", "en_latin", "zh_han"]))
    column = {name: batch[name].to_numpy() for name in batch.schema.names}
    has_text = (column["en_chars"] > 0) & (column["zh_chars"] > 0)
    swapped = has_text & (column["en_latin"] < 0.5) & (column["zh_han"] < 0.1)
    if has_text.sum() >= MIN_SIDES and swapped.sum() > SWAPPED_SHARE * has_text.sum():
        share = f"{swapped.sum() / has_text.sum():.0%} of its rows"
        raise UserError(f"source {source.name}: {share} have no English as en and no Chinese as zh; are they swapped?")


def _cache_key(source: Source, root: str, references: References) -> str:
    """Hash of all that scored rows depend on: the source's config, the size and time of its files, and our own code."""
    formats = {source_class: name for name, source_class in FORMATS.items()}
    parts: dict[str, Any] = {"format": formats[type(source)], "config": asdict(source), "code": code_sha256()}
    parts["benchmarks"] = [references.sha256, references.needs_signatures]
    parts["files"] = [_file_state(root, path) for path in source.paths]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_sha256() -> str:
    """Hash of the files that decide what a scored row is."""
    package = Path(__file__).parents[1]
    files = [*package.glob("sources/*.py"), *package.glob("clean/*.py"), package / "build" / "scoring.py"]
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(files))).hexdigest()


def _file_state(root: str, path: str) -> list[Any]:
    """Path, size, and time or ETag of one input; None for what a hub or server does not give."""
    target = resolve_path(root, path.partition("!")[0])
    if path.startswith("hub://"):
        return [path, None, None]
    if is_url(target):
        try:
            filesystem, name = fsspec.core.url_to_fs(target)
            details = filesystem.info(name)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{path}: cannot be opened: {error}; check the URL") from error
        return [path, details.get("size"), details.get("ETag") or details.get("mtime")]
    try:
        stat = Path(target).stat()
    except OSError:
        raise UserError(f"{path}: no such file (looked for {target}); fix the path in the config") from None
    return [path, stat.st_size, stat.st_mtime_ns]


def describe_file(root: str, path: str) -> SourceFile:
    """Size and hash of one input file; of a URL the size, of a data set on the hub neither."""
    _, size, _ = _file_state(root, path)
    target = resolve_path(root, path.partition("!")[0])
    if is_url(target):
        return SourceFile(path, int(size or 0), "")
    with Path(target).open("rb") as stream:
        return SourceFile(path, size, hashlib.file_digest(stream, "sha256").hexdigest())
