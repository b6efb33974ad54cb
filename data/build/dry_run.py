"""`python -m data.build CONFIG.yaml --dry_run true`: the first rows of every source, before all rows take a day."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.build.cache import CACHE_PARQUET, ScoredSource, check_sides
from data.build.config import ResolvedCorpus
from data.build.report import Account, count_source_rows, kept_samples, source_hint
from data.build.scoring import clean_batch, local_bytes
from data.build.selection import select_rows
from data.build.shards import write_corpus
from data.clean.benchmarks import Exclusions
from data.clean.scores import References
from data.cli import UserError
from data.sources.base import Source
from data.sources.io import bytes_read

NUM_ROWS = 10_000  # of a source
READ_SECONDS = 2.0  # of reading a source
NUM_REASONS, NUM_EXAMPLES = 4, 2
JUDGING_BYTES, JUDGING_BASE = 5, 2 << 30  # of memory: a row (verdict and masks), and for any number of rows


@dataclass(frozen=True)
class SampledSource:
    """The first rows of a source, scored, and what all of its rows would take."""

    scored: ScoredSource
    expected_rows: float
    is_whole: bool  # the number of rows is known, because reading came to the end
    row_seconds: float  # of reading and cleaning a row on all cores
    row_bytes: float  # of a row in the cache


def dry_run(resolved: ResolvedCorpus, references: References, exclusions: Exclusions) -> str:
    """A table of expected rows, time, disk and rejects of every source, then some of their pairs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = [_sample_source(source, resolved.root, folder, references) for source in resolved.sources]
        scored_sources = [sample.scored for sample in samples]
        selection = select_rows(resolved, scored_sources, exclusions, folder)
        written = write_corpus(folder, scored_sources, selection, resolved.config.rows_per_shard)
        accounts = [count_source_rows(n, source, selection, written) for n, source in enumerate(scored_sources)]
        sizes = [path.stat().st_size for path in folder.glob("*/part-*.parquet")]
        kept_bytes = sum(sizes) / max(sum(account.train + account.valid for account in accounts), 1)
        lines = _table(samples, accounts, kept_bytes)
        for source, pairs in kept_samples(folder).items():
            lines += ["", f"{source}: kept", *(f"  {pair['en']} / {pair['zh']}" for pair in pairs)]
    for reason, examples in selection.reject_log.examples.items():
        lines += ["", f"{reason}: rejected"]
        rows = [written.example_texts[row] for _, row in examples[:NUM_EXAMPLES]]
        lines += [f"  {row['place']}: {row['en']} / {row['zh']}" for row in rows]
    return "\n".join(line[:200] for line in lines)


def _sample_source(source: Source, root: str, folder: Path, references: References) -> SampledSource:
    """Read and score NUM_ROWS, and read on for a while, which sharpens the expected number of rows."""
    bytes_read.clear()
    batches, sample, num_read = source.batches(root), list[pa.RecordBatch](), 0
    started, is_whole = time.monotonic(), False
    while not is_whole and (num_read < NUM_ROWS or time.monotonic() - started < READ_SECONDS):
        batch = next(batches, None)
        is_whole = batch is None
        if batch is not None:
            sample += [batch] if num_read < NUM_ROWS else []
            num_read += batch.num_rows
    if not num_read:
        raise UserError(f"source {source.name}: no rows in {', '.join(source.paths)}; is the file empty?")
    read_seconds = (time.monotonic() - started) / num_read
    raw = pa.Table.from_batches(sample).slice(0, NUM_ROWS).combine_chunks().to_batches()[0]
    clean_batch(raw["en"][:1], raw["zh"][:1], raw["fault"][:1], source, references)  # compiles
    started = time.monotonic()
    cleaned = clean_batch(raw["en"], raw["zh"], raw["fault"], source, references)
    clean_seconds = (time.monotonic() - started) / raw.num_rows / (os.cpu_count() or 1)
    columns = {name: raw[name] for name in ("image", "file", "line", "sub")}
    columns |= {field.name: cleaned.field(index) for index, field in enumerate(cleaned.type)}
    path = folder / "scored" / source.name / "rows.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path, **CACHE_PARQUET)
    check_sides(source, path)
    expected = num_read if is_whole else num_read * local_bytes(root, source.paths) / max(bytes_read.total(), 1)
    row_seconds, row_bytes = max(read_seconds, clean_seconds), path.stat().st_size / raw.num_rows
    return SampledSource(ScoredSource(source, path, raw.num_rows, (), 0), expected, is_whole, row_seconds, row_bytes)


def _table(samples: list[SampledSource], accounts: list[Account], kept_bytes: float) -> list[str]:
    lines = [f"{'source':28} {'rows':>14} {'kept':>6} {'scoring':>9} {'disk':>9}  rejects among the first {NUM_ROWS:,}"]
    total_rows = total_seconds = total_bytes = 0.0
    for sample, account in zip(samples, accounts, strict=True):
        kept, rows = 1 - account.rows_rejected / account.rows_in, sample.expected_rows
        seconds, size = rows * sample.row_seconds, rows * (sample.row_bytes + kept * kept_bytes)
        total_rows, total_seconds, total_bytes = total_rows + rows, total_seconds + seconds, total_bytes + size
        worst = sorted(account.rejected.items(), key=lambda item: -item[1])[:NUM_REASONS]
        reasons = ", ".join(f"{reason} {count / account.rows_in:.1%}" for reason, count in worst)
        count = f"{rows:,.0f}" if sample.is_whole else f"about {_round(rows):,}"
        name = sample.scored.source.name
        lines.append(f"{name:28} {count:>14} {kept:>6.1%} {_duration(seconds):>9} {_size(size):>9}  {reasons}")
    lines.append(f"{'all':28} {_round(total_rows):>14,} {'':6} {_duration(total_seconds):>9} {_size(total_bytes):>9}")
    lines += [hint for account in accounts if (hint := source_hint(account))]
    memory = _size(JUDGING_BASE + total_rows * JUDGING_BYTES)
    return [*lines, f"Judging and writing come on top of the scoring; the judging takes about {memory} of memory."]


def _round(rows: float) -> int:
    """Two digits: the number is an estimate."""
    return int(float(f"{rows:.2g}"))


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds >= 60
        else f"{seconds:.0f} s"
    )


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
