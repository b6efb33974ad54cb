"""`python -m data.build CONFIG.yaml --out DIR`: from published corpora to a clean parallel corpus and its report."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import daft
from jsonargparse import ArgumentParser

from data.build.cache import SourceFile, describe_file, score_source
from data.build.config import ResolvedCorpus, load_corpus_config
from data.build.dry_run import dry_run
from data.build.report import build_report, data_card, kept_samples, report_summary
from data.build.selection import KEPT, VALID, select_rows
from data.build.shards import write_corpus
from data.clean.benchmarks import Benchmark, Exclusions, benchmark_paths, build_exclusions, load_benchmark
from data.clean.decontaminate import build_indices
from data.clean.scores import BannedWords, References, load_banned_words
from data.cli import UserError, run_cli
from data.files import atomic_folder, file_lock, remove_abandoned, replace_folder, restore_folder, write_json

Benchmarks = list[tuple[Benchmark, SourceFile]]


def build(config_path: Path, out: Path, overwrite: bool = False) -> None:
    """Build the corpus `out`: absent or whole at any moment; a build that was killed continues where it stopped."""
    started = time.monotonic()
    resolved = load_corpus_config(config_path)
    config_file = _describe_config(resolved, config_path)
    out = out.resolve()  # a link keeps pointing at the corpus
    restore_folder(out)
    if not _needs_build(config_file, out, overwrite):
        return
    partial = out.with_name(out.name + ".partial")
    with file_lock(out, f"{out}: another build is writing this corpus; wait for it, or choose another --out"):
        scored = partial / "scored"
        scored.mkdir(parents=True, exist_ok=True)
        remove_abandoned(scored)
        _link_cached_sources(out / "scored", scored)
        benchmarks = _load_benchmarks(resolved)
        references = _load_references(resolved, benchmarks)
        scored_sources = [score_source(source, resolved.root, scored, references) for source in resolved.sources]
        exclusions = build_exclusions([b for b, _ in benchmarks]) if benchmarks else Exclusions()
        selection = select_rows(resolved, scored_sources, exclusions, scored)
        written = write_corpus(partial, scored_sources, selection, resolved.config.rows_per_shard)
        if not sum(written.train.values()):
            reasons = ", ".join(sorted(set(selection.reject_log.reasons) - {KEPT, VALID}))
            fix = "loosen `limits` or fix the sources"
            raise UserError(f"{config_path}: no row is left after cleaning (reasons: {reasons}); {fix}")
        report = build_report(
            resolved, config_file, scored_sources, benchmarks, selection, written, time.monotonic() - started
        )
        _remove_unused_sources(scored, {source.name for source in resolved.sources})
        (partial / "DATA_CARD.md").write_text(data_card(report, kept_samples(partial)), encoding="utf-8")
        write_json(report, partial / "report.json")
        replace_folder(partial, out)
    print(report_summary(report))
    print(f"wrote {out} in {report['seconds']} s")


def try_build(config_path: Path) -> None:
    """Print what the first rows of every source show; nothing is written."""
    resolved = load_corpus_config(config_path)
    benchmarks = _load_benchmarks(resolved)
    exclusions = build_exclusions([b for b, _ in benchmarks]) if benchmarks else Exclusions()
    print(dry_run(resolved, _load_references(resolved, benchmarks), exclusions))


def _describe_config(resolved: ResolvedCorpus, config_path: Path) -> SourceFile:
    data = resolved.config_text.encode()
    return SourceFile(str(config_path), len(data), hashlib.sha256(data).hexdigest())


def _needs_build(config_file: SourceFile, out: Path, overwrite: bool) -> bool:
    """Whether `out` is absent or may be replaced."""
    if not out.exists():
        return True
    try:
        old_report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        same_config = old_report["config"]["sha256"] == config_file.sha256
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{out}: exists and is not a corpus; choose another --out") from None
    if overwrite:
        return True
    if not same_config:
        raise UserError(f"{out}: holds a corpus of another config; choose another --out, or pass --overwrite true")
    print(f"{out} is already built from this config; pass --overwrite true to build it again")
    return False


def _load_benchmarks(resolved: ResolvedCorpus) -> Benchmarks:
    config = resolved.config
    paths = benchmark_paths(resolved.root, config.benchmark_folder, config.benchmarks) if config.benchmarks else []
    return [(load_benchmark(resolved.root, path), describe_file(resolved.root, path)) for path in paths]


def _load_references(resolved: ResolvedCorpus, benchmarks: Benchmarks) -> References:
    words_path, files = resolved.config.banned_words, [file for _, file in benchmarks]
    files += [describe_file(resolved.root, words_path)] if words_path else []
    digest = hashlib.sha256("".join(file.sha256 + file.path for file in files).encode()).hexdigest()
    needs_signatures = any(limits.near_duplicate <= 1 for limits in resolved.limits.values())
    banned_words = load_banned_words(resolved.root, words_path) if words_path else BannedWords()
    indices = build_indices([b for b, _ in benchmarks]) if benchmarks else None
    return References(indices, digest, needs_signatures, banned_words)


def _link_cached_sources(old: Path, new: Path) -> None:
    """Give a new build the scored sources of the old corpus; unchanged ones are not read again."""
    for done in old.glob("*/done.json"):
        name = done.parent.name
        if not (new / name).exists():
            with atomic_folder(new / name) as partial:
                shutil.copytree(old / name, partial, copy_function=os.link)
                (partial / "verdicts.parquet").unlink(missing_ok=True)


def _remove_unused_sources(scored: Path, names: set[str]) -> None:
    for folder in scored.iterdir():
        if folder.name not in names:
            shutil.rmtree(folder)


def main() -> None:
    """Read the command line and build."""
    parser = ArgumentParser(prog="data.build", description=__doc__, exit_on_error=False)
    parser.add_argument("config", type=Path, help="corpus config (YAML)")
    parser.add_argument("--out", type=Path | None, help="folder of the corpus; absent or whole at any moment")
    parser.add_argument(
        "--dry_run", type=bool, default=False, help="look at the first rows of every source, write nothing"
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a corpus of another config")
    parser.add_argument("--runner", type=str, default="native", help="native: this machine; ray: a Ray cluster")
    args = parser.parse_args()
    if args.dry_run:
        return try_build(args.config)
    if args.out is None:
        raise UserError("--out: missing; name the folder of the corpus, or look first with --dry_run true")
    if args.runner not in ("native", "ray"):
        raise UserError(f"--runner {args.runner!r} is not native or ray")
    if args.runner == "ray":
        daft.set_runner_ray()
    else:
        os.environ["DAFT_RUNNER"] = "native"  # named, because Daft otherwise imports Ray to see whether it is wanted
    daft.set_execution_config(maintain_order=True)
    build(args.config, args.out, args.overwrite)


if __name__ == "__main__":
    run_cli(main)
