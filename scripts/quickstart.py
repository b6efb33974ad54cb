"""`python scripts/quickstart.py`: from nothing to a bilingual student, its scores and its pictures, in minutes.

The world, the teacher and the Stable Diffusion are the miniature's (docs/miniature.md): they know English only, and the
student learns its Chinese from text alone. Every stage is the shipped command, and one whose output is there is not run
again.
"""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the package distill

import yaml  # noqa: E402
from jsonargparse import auto_cli  # noqa: E402

from data.cli import REPOSITORY, run_cli, run_subcommand  # noqa: E402
from data.miniature import ASSETS  # noqa: E402
from data.miniature.corpus import REGISTERS, write_lines  # noqa: E402
from data.miniature.scene import KINDS  # noqa: E402
from data.miniature.words import NOUNS  # noqa: E402

DOMAINS = {"verse": "poetry"}  # the others are domains by their own name


def run_quickstart(
    folder: Path = REPOSITORY / "runs" / "quickstart",
    models: Path = ASSETS,
    pairs: int = 30_000,
    scenes: int = 1000,
    drawn: int = 24,
    xl: bool = False,
) -> None:
    """Run every stage below `folder` and print where the results are.

    Args:
        folder: Where everything is written.
        models: The miniature's models: clip/, pipeline/ and pipeline-xl/, recogniser/.
        pairs: Training pairs in all five registers.
        scenes: Unseen scenes of the retrieval benchmark.
        drawn: How many of them are drawn.
        xl: Teach both encoders of the miniature SDXL, on the same corpus, beside what is in the folder.
    """

    def run(command: str, output: str | None = None) -> None:
        """Run a command of this repository, unless its `output` is there already."""
        if output is None or not any(folder.glob(output)):
            values = {"folder": folder, "models": models, "pairs": pairs, "scenes": scenes, "drawn": drawn}
            run_subcommand(*(word.format(**values) for word in shlex.split(command)))

    run("-m data.miniature --out {folder}/world --pairs {pairs} --scenes {scenes} --pictures true",
        "world/test/prompts.jsonl")  # fmt: skip
    _write_corpus_config(folder / "world")
    run("-m data.build {folder}/world/corpus.yaml --out {folder}/corpus", "corpus/report.json")
    run("-m data.augment {folder}/corpus --switched 0.6", "corpus/train/augmented-*.parquet")
    if xl:
        _run_pair(run)
        print(_drawn_line(json.loads((folder / "drawn-xl" / "result.json").read_text(encoding="utf-8")), folder))
    else:
        _run_single(run)
        print(_summary_line(json.loads((folder / "retrieval.json").read_text(encoding="utf-8")), folder))


Run = Callable[..., None]


def _run_single(run: Run) -> None:
    """The encoder of CLIP and of the miniature Stable Diffusion: training, export, retrieval, pictures, report."""
    run("-m distill.unet_geometry --unet {models}/pipeline --out {folder}/unet.safetensors", "unet.safetensors")
    run("scripts/distill.py --config configs/quickstart.yaml --teacher {models}/clip --data.corpus {folder}/corpus"
        " --losses.unet_geometry {folder}/unet.safetensors --out_dir {folder}/run")  # fmt: skip
    run("scripts/export.py --run {folder}/run --out {folder}/student")
    run("-m eval.flickr30k_cn --student {folder}/student --clip {models}/clip --data {folder}/world/test/captions.jsonl"
        " --images {folder}/world/test/images --title 'The miniature' --out {folder}/retrieval.json")  # fmt: skip
    run("-m eval.generation --pipeline {models}/pipeline --student {folder}/student"
        " --prompts {folder}/world/test/prompts.jsonl --recogniser {models}/recogniser --limit {drawn} --seeds 1"
        " --out {folder}/drawn")  # fmt: skip
    run("-m eval.report {folder}/retrieval.json {folder}/run {folder}/drawn --images {folder}/world/test/images"
        " --title 'Yuqiao quickstart' --out {folder}/report.html")  # fmt: skip


def _run_pair(run: Run) -> None:
    """Both encoders of the miniature SDXL: training, export, pictures, report."""
    run("-m distill.unet_geometry --unet {models}/pipeline-xl --out {folder}/unet-xl.safetensors",
        "unet-xl.safetensors")  # fmt: skip
    run("scripts/distill.py --config configs/quickstart-xl.yaml --teacher {models}/pipeline-xl"
        " --data.corpus {folder}/corpus --losses.unet_geometry {folder}/unet-xl.safetensors"
        " --out_dir {folder}/run-xl")  # fmt: skip
    run("scripts/export.py --run {folder}/run-xl --out {folder}/student-xl")
    run("-m eval.generation --pipeline {models}/pipeline-xl --student {folder}/student-xl"
        " --prompts {folder}/world/test/prompts.jsonl --recogniser {models}/recogniser --limit {drawn} --seeds 1"
        " --drawing.guidance 4 --out {folder}/drawn-xl")  # fmt: skip
    run("-m eval.report {folder}/run-xl/l {folder}/run-xl/g {folder}/drawn-xl --title 'Yuqiao quickstart, SDXL'"
        " --out {folder}/report-xl.html")  # fmt: skip


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


def _drawn_line(result: Mapping[str, dict[str, dict[str, float]]], folder: Path) -> str:
    """The last line for SDXL: things drawn right by language, and where the rest is."""
    shares = {name: 100 * each["mean"] for name, each in result["things"].items()}
    return (
        f"things drawn right: teacher on English {shares['teacher-en']:.1f} %, student on Chinese "
        f"{shares['student-zh']:.1f} %, mixed {shares['student-mixed']:.1f} %; see {folder / 'report-xl.html'}"
    )


def main() -> None:
    """Read the command line and run."""
    auto_cli(run_quickstart, as_positional=False, exit_on_error=False)


if __name__ == "__main__":
    run_cli(main)
