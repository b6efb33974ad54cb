"""The whole way in minutes on a machine that has nothing: corpus, student, export, retrieval, pictures, report.

The world, the teacher and the Stable Diffusion are the miniature's (docs/miniature.md): they know English only, and the
student learns its Chinese from text alone. Every stage is the shipped command, and one whose output is there is not run
again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from data.cli import REPOSITORY, run_subcommand
from data.miniature.corpus import REGISTERS, write_lines
from data.miniature.scene import KINDS
from data.miniature.words import NOUNS

ASSETS = REPOSITORY / "data" / "miniature" / "assets"
DOMAINS = {"verse": "poetry"}  # the others are domains by their own name


@dataclass(frozen=True)
class Stage:
    """A command line behind `python`; it is skipped where `output` is there."""

    command: tuple[str | Path, ...]
    output: Path | None = None


def main(
    folder: Path = REPOSITORY / "runs" / "quickstart",
    models: Path = ASSETS,
    pairs: int = 30_000,
    scenes: int = 1000,
    drawn: int = 24,
) -> None:
    """Run every stage below `folder` and print where the results are.

    Args:
        folder: Where everything is written.
        models: The miniature's models: clip/, pipeline/, recogniser/.
        pairs: Training pairs in all five registers.
        scenes: Unseen scenes of the retrieval benchmark.
        drawn: How many of them are drawn.
    """
    if not (folder / "corpus" / "report.json").is_file():
        _write_corpus_config(folder / "world")
    for stage in _stages(folder, models, pairs, scenes, drawn):
        if stage.output is None or not stage.output.exists():
            run_subcommand(*map(str, stage.command))
    result = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
    print(_summary_line(result, folder))


def _stages(folder: Path, models: Path, pairs: int, scenes: int, drawn: int) -> list[Stage]:
    world, corpus, geometry = folder / "world", folder / "corpus", folder / "unet.safetensors"
    test, run, student = world / "test", folder / "run", folder / "student"
    pictures, result = folder / "drawn", folder / "retrieval.json"
    clip, pipeline = models / "clip", models / "pipeline"
    return [
        Stage((
            "-m", "data.miniature", "--out", world, "--pairs", str(pairs), "--scenes", str(scenes),
            "--pictures", "true",
        ), test / "images" / f"{scenes - 1:04d}.png"),
        Stage(("-m", "data.build", world / "corpus.yaml", "--out", corpus), corpus / "report.json"),
        Stage(("-m", "data.augment", corpus, "--switched", "0.6"), corpus / "train" / "augmented-00000.parquet"),
        Stage(("-m", "distill.unet_geometry", "--unet", pipeline, "--out", geometry), geometry),
        Stage((
            "scripts/distill.py", "--config", "configs/quickstart.yaml", "--teacher", clip, "--out_dir", run,
            "--data.corpus", corpus, "--losses.unet_geometry", geometry,
        )),
        Stage(("scripts/export.py", "--run", run, "--out", student)),
        Stage((
            "-m", "eval.flickr30k_cn", "--student", student, "--clip", clip, "--data", test / "captions.jsonl",
            "--images", test / "images", "--title", "The miniature", "--out", result,
        )),
        Stage((
            "-m", "eval.generation", "--pipeline", pipeline, "--student", student, "--prompts", test / "prompts.jsonl",
            "--recogniser", models / "recogniser", "--limit", str(drawn), "--seeds", "1", "--out", pictures,
        )),
        Stage((
            "-m", "eval.report", result, run, pictures, "--images", test / "images",
            "--title", "Yuqiao quickstart", "--out", folder / "report.html",
        )),
    ]  # fmt: skip


def _write_corpus_config(world: Path) -> None:
    """A corpus of the registers and of a dictionary of the things' names, with the test captions as a benchmark."""
    nouns = [{"en": en, "zh": zh} for kind in KINDS for en in NOUNS[kind].en.common for zh in NOUNS[kind].zh.common]
    write_lines(world / "pairs" / "dictionary.jsonl", nouns)
    sources = [
        {"name": name, "domain": DOMAINS.get(name, name), "license": "made here", "format": "jsonl",
         "files": [f"pairs/{name}.jsonl"]}
        for name in (*REGISTERS, "dictionary")
    ]  # fmt: skip
    corpus_config = {"sources": sources, "benchmarks": ["test/captions.jsonl"]}
    (world / "corpus.yaml").write_text(yaml.safe_dump(corpus_config, allow_unicode=True), encoding="utf-8")


def _summary_line(result: Mapping[str, list[dict[str, object]]], folder: Path) -> str:
    """The last line: the three mean recalls, and where the report is."""
    recall = {(row["model"], row["language"]): row["mr"] for row in result["rows"]}
    teacher, student, floor = (recall[key] for key in (("teacher", "en"), ("student", "zh"), ("teacher", "zh")))
    return (
        f"mean recall: teacher on English {teacher:.1f}, student on Chinese {student:.1f}, "
        f"teacher on Chinese {floor:.1f}; see {folder / 'report.html'}"
    )
