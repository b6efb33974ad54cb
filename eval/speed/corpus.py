"""`python scripts/benchmark.py data`: speed and memory of a whole build, and OpusFilter beside it on the same rows."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import yaml
from jsonargparse import ArgumentParser, Namespace

from data.files import write_json
from data.sources.io import TEXT
from eval.speed.peer_opusfilter import compare_with_opusfilter
from eval.speed.token_store import measure_token_store

PLAIN = ("caption", "general", "subtitle", "encyclopedia", "news")  # domains whose rows are sentences


def load_pairs(corpus: Path) -> tuple[pa.Array, pa.Array]:
    """English and Chinese of all scored rows of a built corpus, without the dictionary's."""
    report_json = json.loads((corpus / "report.json").read_text(encoding="utf-8"))
    names = [s["name"] for s in report_json["sources"] if s["domain"] in PLAIN]
    table = ds.dataset([corpus / "scored" / name / "rows.parquet" for name in names]).to_table(columns=["en", "zh"])
    table = table.filter(pc.and_(pc.not_equal(table["en"], ""), pc.not_equal(table["zh"], "")))
    return table["en"].combine_chunks(), table["zh"].combine_chunks()


def write_rows(path: Path, en: pa.Array, zh: pa.Array, rows: int) -> None:
    """`rows` pairs as TSV: the real ones in random order, then different concatenations of two real ones."""
    draw = np.random.default_rng(0)
    order = draw.permutation(len(en))
    with path.open("wb") as file:
        for start in range(0, rows, 200_000):
            count = min(200_000, rows - start)
            first = order[np.arange(start, start + count) % len(en)]
            left, right = en.take(pa.array(first)), zh.take(pa.array(first))
            if start + count > len(en):
                second = pa.array(draw.integers(0, len(en), count))
                left = pc.binary_join_element_wise(left, en.take(second), pa.scalar(" ", TEXT))
                right = pc.binary_join_element_wise(right, zh.take(second), pa.scalar("", TEXT))
            lines = pc.binary_join_element_wise(left, right, pa.scalar("\t", TEXT))
            file.write("\n".join(lines.to_pylist()).encode() + b"\n")


def measure_build(config: Path, out: Path, rows: int) -> dict[str, Any]:
    """Time and peak memory of one build, in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "data.build", str(config), "--out", str(out)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise RuntimeError(errors.decode()[-2000:])
    report_json = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        "rows": rows,
        "kept": report_json["rows_kept"],
        "seconds": round(seconds, 1),
        "pairs_a_second": round(rows / seconds),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),  # of all threads: other work does not count
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),  # resident, of the whole process
        # Seconds from reading to scoring; the rest is selection and writing.
        "phases": {"scoring": sum(source["seconds"] for source in report_json["sources"])},
    }


def build_config(folder: Path, tsv: Path, benchmarks: list[str]) -> Path:
    """A corpus config with every step but similarity: cleaning, exact and near duplicates, benchmarks."""
    source = {"name": "rows", "domain": "general", "license": "mixed", "format": "tsv", "files": [str(tsv)],
              "speakers": True, "spaces": "comma"}  # fmt: skip
    path = folder / f"{tsv.stem}.yaml"
    path.write_text(yaml.safe_dump({"sources": [source], "benchmarks": benchmarks}), encoding="utf-8")
    return path


def main() -> None:
    """Measure, print and write `result.json`; with --opusfilter also the peer."""
    parser = ArgumentParser(prog="benchmark.py data", description=__doc__, exit_on_error=False)
    parser.add_argument("--corpus", type=Path, default=None, help="a corpus that data.build wrote: its rows are used")
    parser.add_argument("--benchmarks", type=list[str], default=[], help="benchmark files to keep out")
    parser.add_argument("--rows", type=list[int], default=[1_000_000, 10_000_000])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-data"))
    parser.add_argument("--opusfilter", type=Path, default=None, help="python of an environment that has opusfilter")
    parser.add_argument("--opusfilter_rows", type=list[int], default=[50_000])
    parser.add_argument("--opusfilter_runs", type=int, default=1, help="of the peer; one more of ours around them")
    parser.add_argument("--index_rows", type=int, default=0, help="rows of a synthetic token store to draw from")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    if args.index_rows:
        result["index"] = measure_token_store(args.work, args.index_rows)
        print(json.dumps(result["index"], indent=1), flush=True)
    if args.corpus:
        _measure_builds(args, result)
    write_json(result, args.work / "result.json")


def _measure_builds(args: Namespace, result: dict[str, Any]) -> None:
    """Builds of each size, and the peer with --opusfilter."""
    en, zh = load_pairs(args.corpus)
    result["builds"] = []
    for rows in args.rows:
        tsv = args.work / f"rows-{rows}.tsv"
        write_rows(tsv, en, zh, rows)
        config = build_config(args.work, tsv.resolve(), [str(Path(b).resolve()) for b in args.benchmarks])
        result["builds"].append(measure_build(config, args.work / f"corpus-{rows}", rows))
        print(f"{rows:>12,} rows: {json.dumps(result['builds'][-1])}", flush=True)
        tsv.unlink()
    result["opusfilter"] = []
    for rows in args.opusfilter_rows if args.opusfilter else []:
        tsv = args.work / "peer.tsv"
        write_rows(tsv, en, zh, rows)
        result["opusfilter"].append(compare_with_opusfilter(args.opusfilter, tsv, args.work, args.opusfilter_runs))
        print(json.dumps(result["opusfilter"][-1], indent=1, ensure_ascii=False), flush=True)
