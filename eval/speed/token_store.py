"""A synthetic token store of many rows: seconds to open it, its memory, and seconds of a batch."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jsonargparse import ArgumentParser

from data.cli import run_cli
from data.loader.token_store import VIEWS

BATCH_ROWS = 1 << 18  # rows a record batch, as the store writes them
STORE_DOMAINS = ("general", "caption", "news")
STEPS = 200  # batches at random steps of a long run, and as many in order


def write_store(folder: Path, rows: int) -> None:
    """A store of `rows` rows of 2 to 8 tokens: the same record batch again and again."""
    draw = np.random.default_rng(0)
    columns = []
    for _ in VIEWS:
        offsets = np.concatenate([[0], np.cumsum(draw.integers(2, 9, BATCH_ROWS))])
        values = draw.integers(0, 49408, offsets[-1]).astype(np.int32)
        columns.append(pa.LargeListArray.from_arrays(offsets, values))
    batch = pa.record_batch(columns, names=list(VIEWS))
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for number, domain in enumerate(STORE_DOMAINS):
        left = rows * (number + 1) // len(STORE_DOMAINS) - rows * number // len(STORE_DOMAINS)
        with pa.ipc.new_stream(str(folder / "train" / f"{domain}.arrow"), batch.schema) as writer:
            for start in range(0, left, BATCH_ROWS):
                writer.write_batch(batch.slice(0, min(BATCH_ROWS, left - start)))


def measure_store(folder: Path) -> dict[str, float]:
    """Open the store in this process and draw: seconds of a batch of 512 pairs, and memory.

    `open_gib` is resident when open, torch included; `drawn_gib` is private memory after all batches: pages of the
    mapped file may be dropped and do not count. A `cold` batch is at a random step, whose window is drawn first, with
    no page of the file in the page cache; `anywhere` are the same steps again; `onward` is the next step's batch.
    """
    from data.loader.batches import BatchDataset, BatchSchedule, Vocabulary
    from data.loader.mixture import MixtureConfig, mixture_stages
    from data.loader.token_store import TokenStore

    started = time.perf_counter()
    store = TokenStore(folder)
    sizes = {name: len(tokens) for name, tokens in store.train.items()}
    schedule = BatchSchedule(seed=0, batch_size=512, window=32, full_share=0.25)
    clip = Vocabulary(pad_id=49407, eos_id=49407, max_length=77)
    batches = BatchDataset(
        store.train, mixture_stages(sizes, MixtureConfig(max_epochs=None), 1, 512), schedule, clip, clip
    )
    opened, resident = time.perf_counter() - started, _gib("VmRSS")
    batches[0]
    files = sorted((folder / "train").iterdir())
    drop_page_cache(files)
    anywhere = np.random.default_rng(1).integers(0, 2_000_000, STEPS).tolist()
    times = []
    for step in [*anywhere, *anywhere, *range(STEPS)]:
        started = time.perf_counter()
        batches[step]
        times.append(time.perf_counter() - started)
    size = sum(path.stat().st_size for path in files) / 1e9
    measured = {
        "rows": sum(sizes.values()), "gigabytes": round(size, 1), "open_seconds": round(opened, 4),
        "open_gib": resident, "drawn_gib": _gib("RssAnon"),
    }  # fmt: skip
    for name, seconds in zip(("cold", "anywhere", "onward"), np.reshape(times, (3, STEPS)), strict=True):
        quantiles = zip(("median", "p99", "worst"), np.percentile(seconds, [50, 99, 100]), strict=True)
        measured |= {f"{name}_{quantile}": round(float(value), 4) for quantile, value in quantiles}
    return measured


def drop_page_cache(files: Sequence[Path]) -> None:
    """Remove the pages of `files` that no process has mapped from the page cache, as after a start."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a page that is not yet written stays
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _gib(kind: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(status.split(f"{kind}:")[1].split()[0]) / 2**20, 2)


def measure_token_store(folder: Path, rows: int) -> dict[str, Any]:
    """Write a store of `rows` below `folder`, measure it in a process of its own, remove it."""
    store = folder / "index"
    write_store(store, rows)
    try:
        command = [sys.executable, "-m", "eval.speed.token_store", str(store)]
        store_speed: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return store_speed
    finally:
        shutil.rmtree(store)


def main() -> None:
    """Measure the store of the command line."""
    parser = ArgumentParser(prog="eval.speed.token_store", description=__doc__, exit_on_error=False)
    parser.add_argument("store", type=Path)
    print(json.dumps(measure_store(parser.parse_args().store)))


if __name__ == "__main__":
    run_cli(main)
