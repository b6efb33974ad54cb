"""The whole way in minutes on a machine that has nothing: corpus, student, export, retrieval, pictures, report.

The world, the teacher and the Stable Diffusion are the miniature's (docs/miniature.md): they know English only, and the
student learns its Chinese from text alone. Every stage is the shipped command, and one whose output is there is not run
again.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from data.cli import REPOSITORY, run_subcommand
from data.miniature import ASSETS
from data.miniature.corpus import REGISTERS, write_lines
from data.miniature.scene import KINDS
from data.miniature.words import NOUNS

DOMAINS = {"verse": "poetry"}  # the others are domains by their own name


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
    world, clip, result = folder / "world", str(models / "clip"), folder / "retrieval.json"
    if not (world / "test" / "prompts.jsonl").is_file():
        run_subcommand("-m", "data.miniature", "--out", str(world), "--pairs", str(pairs), "--scenes", str(scenes),
             "--pictures", "true")  # fmt: skip
    if not (folder / "corpus" / "report.json").is_file():
        _write_corpus_config(world)
        run_subcommand("-m", "data.build", str(world / "corpus.yaml"), "--out", str(folder / "corpus"))
    if not list((folder / "corpus" / "train").glob("augmented-*.parquet")):
        run_subcommand("-m", "data.augment", str(folder / "corpus"), "--switched", "0.6")
    geometry = folder / "unet.safetensors"
    if not geometry.is_file():
        run_subcommand("-m", "distill.unet_geometry", "--unet", str(models / "pipeline"), "--out", str(geometry))
    run_subcommand(
        "scripts/distill.py",
        "--config",
        "configs/quickstart.yaml",
        "--teacher",
        clip,
        "--data.corpus",
        str(folder / "corpus"),
        "--losses.unet_geometry",
        str(geometry),
        "--out_dir",
        str(folder / "run"),
    )
    run_subcommand("scripts/export.py", "--run", str(folder / "run"), "--out", str(folder / "student"))
    run_subcommand(
        "-m",
        "eval.flickr30k_cn",
        "--student",
        str(folder / "student"),
        "--clip",
        clip,
        "--data",
        str(world / "test" / "captions.jsonl"),
        "--images",
        str(world / "test" / "images"),
        "--title",
        "The miniature",
        "--out",
        str(result),
    )
    run_subcommand(
        "-m",
        "eval.generation",
        "--pipeline",
        str(models / "pipeline"),
        "--student",
        str(folder / "student"),
        "--prompts",
        str(world / "test" / "prompts.jsonl"),
        "--recogniser",
        str(models / "recogniser"),
        "--limit",
        str(drawn),
        "--seeds",
        "1",
        "--out",
        str(folder / "drawn"),
    )
    run_subcommand(
        "-m",
        "eval.report",
        str(result),
        str(folder / "run"),
        str(folder / "drawn"),
        "--images",
        str(world / "test" / "images"),
        "--title",
        "Yuqiao quickstart",
        "--out",
        str(folder / "report.html"),
    )
    print(_summary_line(json.loads(result.read_text(encoding="utf-8")), folder))


def _write_corpus_config(world: Path) -> None:
    """Of the registers, and of a dictionary of the things' names; the test captions are a benchmark."""
    words = [{"en": en, "zh": zh} for kind in KINDS for en in NOUNS[kind].en.common for zh in NOUNS[kind].zh.common]
    write_lines(world / "pairs" / "dictionary.jsonl", words)
    sources = [
        {"name": name, "domain": DOMAINS.get(name, name), "license": "made here", "format": "jsonl",
         "files": [f"pairs/{name}.jsonl"]}
        for name in (*REGISTERS, "dictionary")
    ]  # fmt: skip
    corpus_config = {"sources": sources, "benchmarks": ["test/captions.jsonl"]}
    (world / "corpus.yaml").write_text(yaml.safe_dump(corpus_config, allow_unicode=True), encoding="utf-8")


def _summary_line(result: Mapping[str, list[dict[str, object]]], folder: Path) -> str:
    """The last line: the three numbers that matter, and where the rest is."""
    recall = {(row["model"], row["language"]): row["mr"] for row in result["rows"]}
    ceiling, student, floor = (recall[key] for key in (("teacher", "en"), ("student", "zh"), ("teacher", "zh")))
    return (
        f"mean recall: teacher on English {ceiling:.1f}, student on Chinese {student:.1f}, "
        f"teacher on Chinese {floor:.1f}; see {folder / 'report.html'}"
    )
