"""OpusFilter, the peer, on the same rows with the same filters: length, ratio, script, HTML, language, duplicates."""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pyarrow.dataset as ds
import yaml

FILTERS: list[dict[str, Any]] = [
    {"LengthFilter": {"unit": "char", "min_length": 1, "max_length": 480}},
    {"LengthRatioFilter": {"unit": "char", "threshold": 12}},
    {"CharacterScoreFilter": {"scripts": ["Latin", "Han"], "thresholds": [0.7, 0.3]}},
    {"HtmlTagFilter": {}},
    {"LangidFilter": {"languages": ["en", "zh"], "thresholds": [0, 0],
                          "langid_languages": ["en", "zh", "fr", "de", "es", "ja", "ko"]}},
]  # fmt: skip
OUR_LIMITS = {
    "min_en_chars": 1, "max_en_chars": 480, "max_zh_chars": 480, "min_en_latin": 0.7, "min_zh_han": 0.3,
    "max_run": 999, "max_period": 2.0, "max_marks": 2.0, "max_brackets": 999, "numbers": False, "near_duplicate": 2.0,
    "max_ratio_deviations": 12.0, "max_same_en": 1_000_000, "max_same_zh": 1_000_000,
}  # fmt: skip


CommandSeconds = dict[Literal["wall", "cpu"], float]
"""Seconds of one command, by the wall clock and CPU time of all its processes; start-up counts."""


def _run(command: list[str]) -> CommandSeconds:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(wall, 2), "cpu": round(cpu, 2)}


def compare_with_opusfilter(python: Path, tsv: Path, work: Path, runs: int) -> dict[str, Any]:
    """Seconds and kept rows of both, ours before and after each of the peer's `runs`; agreement over all rows.

    Every run is a process of its own; the ratios are those of the medians.
    """
    pairs = [line.split("\t") for line in tsv.read_text(encoding="utf-8").split("\n") if line]
    seconds, our_rows = _run_build(tsv, work)
    our_timings, peer_timings, peer_rows = [seconds], list[CommandSeconds](), set[int]()
    for _ in range(runs):
        seconds, peer_rows = _run_opusfilter(python, pairs, work / "opusfilter")
        peer_timings.append(seconds)
        our_timings.append(_run_build(tsv, work)[0])
    timings = {"opusfilter": peer_timings, "ours": our_timings}
    wall = {name: median(each["wall"] for each in runs) for name, runs in timings.items()}
    cpu = {name: median(each["cpu"] for each in runs) for name, runs in timings.items()}
    agreed = sum((n in peer_rows) == (n in our_rows) for n in range(len(pairs)))
    return {
        "rows": len(pairs),
        **timings,
        "opusfilter_pairs_a_second": round(len(pairs) / wall["opusfilter"]),
        "our_pairs_a_second": round(len(pairs) / wall["ours"]),
        "ratio": round(wall["opusfilter"] / wall["ours"], 1),
        "cpu_ratio": round(cpu["opusfilter"] / cpu["ours"], 1),
        "kept_by_opusfilter": len(peer_rows),
        "kept_by_us": len(our_rows),
        "agreement": round(agreed / len(pairs), 4),
        "only_opusfilter": [pairs[n] for n in sorted(peer_rows - our_rows)[:10]],
        "only_us": [pairs[n] for n in sorted(our_rows - peer_rows)[:10]],
    }


def _run_opusfilter(python: Path, pairs: list[list[str]], folder: Path) -> tuple[CommandSeconds, set[int]]:
    """Duplicates and filters by OpusFilter's own command, on Moses files; its seconds and the rows that it keeps."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, column in (("rows.en", 0), ("rows.zh", 1)):
        (folder / name).write_text("".join(pair[column] + "\n" for pair in pairs), encoding="utf-8")
    steps = [
        {"type": "remove_duplicates", "parameters": {"inputs": ["rows.en", "rows.zh"],
         "outputs": ["unique.en", "unique.zh"], "lowercase": True, "letters_only": True}},
        {"type": "filter", "parameters": {"inputs": ["unique.en", "unique.zh"],
         "outputs": ["kept.en", "kept.zh"], "filters": FILTERS}},
    ]  # fmt: skip
    config = {"common": {"output_directory": str(folder.resolve())}, "steps": steps}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    seconds = _run([str(python.parent / "opusfilter"), "--overwrite", "--n-jobs", "2", str(folder / "config.yaml")])
    sides = [(folder / f"kept.{side}").read_text(encoding="utf-8").split("\n") for side in ("en", "zh")]
    first_rows = {(pair[0], pair[1]): len(pairs) - back for back, pair in enumerate(reversed(pairs), 1)}
    return seconds, {first_rows[pair] for pair in zip(*sides, strict=True) if pair in first_rows}


def _run_build(tsv: Path, work: Path) -> tuple[CommandSeconds, set[int]]:
    """The same rules by data.build, from reading to Parquet; its seconds and the rows that it keeps."""
    source = {"name": "rows", "domain": "general", "license": "mixed", "format": "tsv", "files": [str(tsv.resolve())]}
    config, out = work / "peer.yaml", work / "peer-corpus"
    tree = {"sources": [source], "limits": OUR_LIMITS, "valid_per_domain": 0}
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    seconds = _run([sys.executable, "-m", "data.build", str(config), "--out", str(out)])
    table = ds.dataset(sorted((out / "train").glob("*.parquet"))).to_table(columns=["id"])
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["train_rows"] == table.num_rows
    return seconds, {int(name.rsplit(":", 1)[1]) - 1 for name in table["id"].to_pylist()}
