"""`python -m data.build CONFIG.yaml --out DIR`: from published corpora to a clean parallel corpus and its report."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import daft
from jsonargparse import ArgumentParser

from data.build.cache import Input, describe, score_source
from data.build.config import Plan, load_plan
from data.build.report import data_card, kept_samples, report, summary, write_report
from data.build.selection import decide
from data.build.shards import write_corpus
from data.clean.benchmarks import Benchmark, benchmark_paths, forbidden, load_benchmark
from data.clean.decontaminate import build_indices
from data.clean.scores import WordList, Yardstick, load_words
from data.cli import UserError, command
from data.files import _locked


def build(config: Path, out: Path, overwrite: bool = False) -> None:
    """Build the corpus `out`: absent or whole, and a build that was killed goes on where it stopped."""
    started = time.monotonic()
    plan = load_plan(config)
    _recover(out)
    if not _wanted(plan, config, out, overwrite):
        return
    partial = out.with_name(out.name + ".partial")
    with _locked(partial):
        if out.exists():
            _reuse(out, partial)
        paths = benchmark_paths(plan.root, plan.recipe.benchmark_folder, plan.recipe.benchmarks)
        benchmarks = [(load_benchmark(plan.root, path), describe(plan.root, path)) for path in paths]
        yardstick = _yardstick(plan, benchmarks)
        scored = [score_source(source, plan.root, partial / "scored", yardstick) for source in plan.sources]
        verdicts = decide(plan, scored, forbidden([b for b, _ in benchmarks]))
        for leftover in ("train", "valid"):
            shutil.rmtree(partial / leftover, ignore_errors=True)
        written = write_corpus(partial, scored, verdicts, plan.recipe.rows_per_shard)
        if not sum(written.train.values()):
            reasons = ", ".join(sorted(set(verdicts.ledger.reasons) - {"", "valid"}))
            raise UserError(
                f"{config}: no row is left after cleaning (reasons: {reasons}); loosen `limits` or mend the sources"
            )
        told = report(
            plan, _config_input(plan, config), scored, benchmarks, verdicts, written, time.monotonic() - started
        )
        _drop_unused(partial, {source.name for source in plan.sources})
        (partial / "DATA_CARD.md").write_text(data_card(told, kept_samples(partial)), encoding="utf-8")
        write_report(partial, told)
        _swap(partial, out)
    print(summary(told))
    print(f"wrote {out} in {told['seconds']} s")


def _config_input(plan: Plan, config: Path) -> Input:
    data = plan.text.encode()
    return Input(str(config), len(data), hashlib.sha256(data).hexdigest())


def _wanted(plan: Plan, config: Path, out: Path, overwrite: bool) -> bool:
    """Whether there is something to do: `out` is absent, or may be replaced."""
    if not out.exists():
        return True
    try:
        told = json.loads((out / "report.json").read_text(encoding="utf-8"))
        same = told["config"]["sha256"] == _config_input(plan, config).sha256
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{out}: exists and is not a corpus; choose another --out") from None
    if overwrite:
        return True
    if not same:
        raise UserError(f"{out}: holds a corpus of another config; choose another --out, or pass --overwrite true")
    print(f"{out} is already built from this config; pass --overwrite true to build it again")
    return False


def _yardstick(plan: Plan, benchmarks: list[tuple[Benchmark, Input]]) -> Yardstick:
    words, files = plan.recipe.banned_words, [file for _, file in benchmarks]
    files += [describe(plan.root, words)] if words else []
    digest = hashlib.sha256("".join(file.sha256 + file.path for file in files).encode()).hexdigest()
    near = any(each.near_duplicate <= 1 for each in plan.limits.values())
    listed = load_words(plan.root, words) if words else WordList()
    return Yardstick(build_indices([b for b, _ in benchmarks]), digest, near, listed)


def _reuse(out: Path, partial: Path) -> None:
    """Give a new build the scored sources of the old corpus; unchanged ones are not read again."""
    for old in (out / "scored").glob("*/done.json"):
        new = partial / "scored" / old.parent.name
        if not new.exists():
            shutil.copytree(old.parent, new, copy_function=os.link)
            (new / "verdicts.parquet").unlink(missing_ok=True)


def _drop_unused(partial: Path, names: set[str]) -> None:
    for folder in (partial / "scored").iterdir():
        if folder.name not in names:
            shutil.rmtree(folder)


def _swap(partial: Path, out: Path) -> None:
    """Put the new corpus in place of the old; killed in between, `_recover` finishes."""
    old = out.with_name(out.name + ".old")
    if out.exists():
        out.replace(old)
    partial.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def _recover(out: Path) -> None:
    """Undo a swap that was killed between its two renames."""
    old = out.with_name(out.name + ".old")
    if old.exists() and not out.exists():
        old.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Read the command line and build."""
    parser = ArgumentParser(prog="data.build", description=__doc__, exit_on_error=False)
    parser.add_argument("config", type=Path, help="corpus config (YAML)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus; absent or whole at any moment")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a corpus of another config")
    parser.add_argument("--runner", type=str, default="native", help="native: this machine; ray: a Ray cluster")
    given = parser.parse_args()
    if given.runner not in ("native", "ray"):
        raise UserError(f"--runner {given.runner!r} is not native or ray")
    if given.runner == "ray":
        daft.set_runner_ray()
    else:
        os.environ["DAFT_RUNNER"] = "native"  # said, not left open: else Daft imports Ray to see whether it is wanted
    daft.set_execution_config(maintain_order=True)
    build(given.config, given.out, given.overwrite)


if __name__ == "__main__":
    command(main)
