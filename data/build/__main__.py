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
from data.build.report import build_report, data_card, kept_samples, report_summary, write_report
from data.build.selection import select_rows
from data.build.shards import write_corpus
from data.clean.benchmarks import Benchmark, benchmark_paths, build_exclusions, load_benchmark
from data.clean.decontaminate import build_indices
from data.clean.scores import BannedWords, References, load_banned_words
from data.cli import UserError, run_cli
from data.files import file_lock, replace_folder, restore_folder


def build(config_path: Path, out: Path, overwrite: bool = False) -> None:
    """Build the corpus `out`: absent or whole, and a build that was killed goes on where it stopped."""
    started = time.monotonic()
    resolved = load_corpus_config(config_path)
    out = out.resolve()  # a link keeps pointing at the corpus
    restore_folder(out)
    if not _needs_build(resolved, config_path, out, overwrite):
        return
    partial = out.with_name(out.name + ".partial")
    with file_lock(out, f"{out}: another build is writing this corpus; wait for it, or choose another --out"):
        partial.mkdir(exist_ok=True)
        if out.exists():
            _link_cached_sources(out, partial)
        paths = benchmark_paths(resolved.root, resolved.config.benchmark_folder, resolved.config.benchmarks)
        benchmarks = [(load_benchmark(resolved.root, path), describe_file(resolved.root, path)) for path in paths]
        references = _load_references(resolved, benchmarks)
        scored_sources = [
            score_source(source, resolved.root, partial / "scored", references) for source in resolved.sources
        ]
        selection = select_rows(resolved, scored_sources, build_exclusions([b for b, _ in benchmarks]))
        for leftover in ("train", "valid"):
            shutil.rmtree(partial / leftover, ignore_errors=True)
        written = write_corpus(partial, scored_sources, selection, resolved.config.rows_per_shard)
        if not sum(written.train.values()):
            reasons = ", ".join(sorted(set(selection.reject_log.reasons) - {"", "valid"}))
            raise UserError(
                f"{config_path}: no row is left after cleaning (reasons: {reasons}); loosen "
                f"`limits` or mend the sources"
            )
        report_json = build_report(
            resolved,
            _config_file(resolved, config_path),
            scored_sources,
            benchmarks,
            selection,
            written,
            time.monotonic() - started,
        )
        _drop_unused(partial, {source.name for source in resolved.sources})
        (partial / "DATA_CARD.md").write_text(data_card(report_json, kept_samples(partial)), encoding="utf-8")
        write_report(partial, report_json)
        replace_folder(partial, out)
    print(report_summary(report_json))
    print(f"wrote {out} in {report_json['seconds']} s")


def _config_file(resolved: ResolvedCorpus, config_path: Path) -> SourceFile:
    data = resolved.config_text.encode()
    return SourceFile(str(config_path), len(data), hashlib.sha256(data).hexdigest())


def _needs_build(resolved: ResolvedCorpus, config_path: Path, out: Path, overwrite: bool) -> bool:
    """Whether there is something to do: `out` is absent, or may be replaced."""
    if not out.exists():
        return True
    try:
        old_report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        same_config = old_report["config"]["sha256"] == _config_file(resolved, config_path).sha256
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{out}: exists and is not a corpus; choose another --out") from None
    if overwrite:
        return True
    if not same_config:
        raise UserError(f"{out}: holds a corpus of another config; choose another --out, or pass --overwrite true")
    print(f"{out} is already built from this config; pass --overwrite true to build it again")
    return False


def _load_references(resolved: ResolvedCorpus, benchmarks: list[tuple[Benchmark, SourceFile]]) -> References:
    words_path, files = resolved.config.banned_words, [file for _, file in benchmarks]
    files += [describe_file(resolved.root, words_path)] if words_path else []
    digest = hashlib.sha256("".join(file.sha256 + file.path for file in files).encode()).hexdigest()
    needs_signatures = any(each.near_duplicate <= 1 for each in resolved.limits.values())
    banned_words = load_banned_words(resolved.root, words_path) if words_path else BannedWords()
    return References(build_indices([b for b, _ in benchmarks]), digest, needs_signatures, banned_words)


def _link_cached_sources(out: Path, partial: Path) -> None:
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


def main() -> None:
    """Read the command line and build."""
    parser = ArgumentParser(prog="data.build", description=__doc__, exit_on_error=False)
    parser.add_argument("config", type=Path, help="corpus config (YAML)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus; absent or whole at any moment")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a corpus of another config")
    parser.add_argument("--runner", type=str, default="native", help="native: this machine; ray: a Ray cluster")
    args = parser.parse_args()
    if args.runner not in ("native", "ray"):
        raise UserError(f"--runner {args.runner!r} is not native or ray")
    if args.runner == "ray":
        daft.set_runner_ray()
    else:
        os.environ["DAFT_RUNNER"] = "native"  # said, not left open: else Daft imports Ray to see whether it is wanted
    daft.set_execution_config(maintain_order=True)
    build(args.config, args.out, args.overwrite)


if __name__ == "__main__":
    run_cli(main)
