"""OpusFilter, the peer, on the same rows with the same filters: length, ratio, script, HTML, language, duplicates."""

import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

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
OURS = {
    "min_en_chars": 1, "max_en_chars": 480, "max_zh_chars": 480, "min_en_latin": 0.7, "min_zh_han": 0.3,
    "max_run": 999, "max_period": 2.0, "max_marks": 2.0, "max_brackets": 999, "numbers": False, "near_duplicate": 2.0,
    "max_ratio_deviations": 12.0, "max_same_en": 1_000_000, "max_same_zh": 1_000_000,
}  # fmt: skip


@dataclass(frozen=True)
class Took:
    """Seconds of one command, by the clock and of all its processes together; start-up counts."""

    wall: float
    cpu: float


def _run(command: list[str]) -> Took:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(round(wall, 2), round(cpu, 2))


def compare(python: Path, tsv: Path, work: Path, runs: int) -> dict[str, Any]:
    """Seconds and kept rows of both, ours before and after each of the peer's `runs`; agreement over all rows.

    Every run is a process of its own; the ratios are those of the medians.
    """
    pairs = [line.split("\t") for line in tsv.read_text(encoding="utf-8").split("\n") if line]
    took, own = _ours(tsv, work)
    own_took, peer_took, peer = [took], list[Took](), set[int]()
    for _ in range(runs):
        took, peer = _opusfilter(python, pairs, work / "opusfilter")
        peer_took.append(took)
        own_took.append(_ours(tsv, work)[0])
    theirs, ours = _median(peer_took), _median(own_took)
    agreed = sum((n in peer) == (n in own) for n in range(len(pairs)))
    return {
        "rows": len(pairs),
        "opusfilter": [asdict(each) for each in peer_took],
        "ours": [asdict(each) for each in own_took],
        "opusfilter_pairs_a_second": round(len(pairs) / theirs.wall),
        "our_pairs_a_second": round(len(pairs) / ours.wall),
        "ratio": round(theirs.wall / ours.wall, 1),
        "cpu_ratio": round(theirs.cpu / ours.cpu, 1),
        "kept_by_opusfilter": len(peer),
        "kept_by_us": len(own),
        "agreement": round(agreed / len(pairs), 4),
        "only_opusfilter": [pairs[n] for n in sorted(peer - own)[:10]],
        "only_us": [pairs[n] for n in sorted(own - peer)[:10]],
    }


def _median(runs: list[Took]) -> Took:
    return Took(median(each.wall for each in runs), median(each.cpu for each in runs))


def _opusfilter(python: Path, pairs: list[list[str]], folder: Path) -> tuple[Took, set[int]]:
    """Run duplicates and filters as OpusFilter's own command does, on Moses files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, place in (("rows.en", 0), ("rows.zh", 1)):
        (folder / name).write_text("".join(pair[place] + "\n" for pair in pairs), encoding="utf-8")
    steps = [
        {"type": "remove_duplicates", "parameters": {"inputs": ["rows.en", "rows.zh"],
         "outputs": ["unique.en", "unique.zh"], "lowercase": True, "letters_only": True}},
        {"type": "filter", "parameters": {"inputs": ["unique.en", "unique.zh"],
         "outputs": ["kept.en", "kept.zh"], "filters": FILTERS}},
    ]  # fmt: skip
    config = {"common": {"output_directory": str(folder.resolve())}, "steps": steps}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    took = _run([str(python.parent / "opusfilter"), "--overwrite", "--n-jobs", "2", str(folder / "config.yaml")])
    sides = [(folder / f"kept.{side}").read_text(encoding="utf-8").split("\n") for side in ("en", "zh")]
    kept, places = set[int](), dict[tuple[str, str], int]()
    for number, pair in enumerate(pairs):
        places.setdefault((pair[0], pair[1]), number)
    for en, zh in zip(*sides, strict=True):
        if (en, zh) in places:
            kept.add(places[en, zh])
    return took, kept


def _ours(tsv: Path, work: Path) -> tuple[Took, set[int]]:
    """The same rules by data.build, whole: reading, normalising, scoring all scores, deciding, writing Parquet."""
    source = {"name": "rows", "domain": "general", "license": "mixed", "format": "tsv", "files": [str(tsv.resolve())]}
    config = work / "peer.yaml"
    config.write_text(yaml.safe_dump({"sources": [source], "limits": OURS, "valid_per_domain": 0}), encoding="utf-8")
    out = work / "peer-corpus"
    shutil.rmtree(out, ignore_errors=True)
    took = _run([sys.executable, "-m", "data.build", str(config), "--out", str(out)])
    table = ds.dataset(sorted((out / "train").glob("*.parquet"))).to_table(columns=["id"])
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["train_rows"] == table.num_rows
    return took, {int(name.rsplit(":", 1)[1]) - 1 for name in table["id"].to_pylist()}
