"""`python -m eval.ablation --rows DIR --corpus CORPUS ... --out OUT`: one question a row, several seeds, one table.

`DIR/base.yaml` is a run's configuration; every other YAML file in it holds what its row changes. A row is distilled,
exported and scored with the shipped commands, in a folder of its own; a row and seed whose JSON is there is not run
again. The table and the dot plot hold means over seeds with 95 % intervals.
"""

import math
import resource
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from jsonargparse import ArgumentParser

from data.cli import UserError, run_cli, run_subcommand
from data.files import read_json, write_json, write_text
from eval.provenance import commit, hashes
from eval.report.charts import dot_plot

T975 = dict(enumerate((12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262), 2))  # Student's t by seeds
ABLATION_MEASURES = {
    "zh/teacher en, MR %": ("retrieval", "student-zh/teacher-en"),
    "en/teacher en, MR %": ("retrieval", "student-en/teacher-en"),
    "zh things/teacher's %": ("drawn", "things_share.student-zh"),
    "mixed things/teacher's %": ("drawn", "things_share.student-mixed"),
    "zh prediction error": ("drawn", "prediction_error.student-zh"),
    "en PSNR, dB": ("drawn", "psnr.student-en"),
    "distilling, CPU s": ("cost", "seconds"),
}

Results = Mapping[str, Mapping[str, list[float]]]


def load_results(out: Path, names: Iterable[str]) -> Results:
    """[row][measure] = values by seed, for the rows that have a ROW.SEED.json in `out`, in the order of `names`."""
    results = {name: [read_json(path) for path in sorted(out.glob(f"{name}.[0-9]*.json"))] for name in names}
    return {
        name: {
            measure: [result[part][key] for result in seeds if key in result.get(part, {})]
            for measure, (part, key) in ABLATION_MEASURES.items()
        }
        for name, seeds in results.items()
        if seeds
    }


def markdown_table(values: Results) -> str:
    """A Markdown line for each row."""
    lines = ["| row | seeds | " + " | ".join(ABLATION_MEASURES) + " |", "|---|---|" + "---|" * len(ABLATION_MEASURES)]
    for name, measures in values.items():
        seeds = max(map(len, measures.values()))
        lines.append(f"| {name} | {seeds} | " + " | ".join(map(mean_and_half_width, measures.values())) + " |")
    return "\n".join(lines) + "\n"


def dot_plot_svg(values: Results) -> str:
    """The same as dots, as an SVG file: the measures that have values."""
    panels = {measure: {name: row[measure] for name, row in values.items()} for measure in ABLATION_MEASURES}
    return dot_plot(
        {measure: rows for measure, rows in panels.items() if any(rows.values())}, list(values), t_half_width
    )


def mean_and_half_width(values: Sequence[float]) -> str:
    """The mean, and from two seeds on the half width of its interval."""
    if not values:
        return "-"
    digits = 1 if abs(mean(values)) >= 10 else 3
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {t_half_width(values):.{digits}f}" if len(values) in T975 else text


def t_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean by Student's t; 0 for one value and for more than ten."""
    return T975[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) in T975 else 0.0


@dataclass(frozen=True)
class AblationOptions:
    """The command line.

    Args:
        rows: Folder of base.yaml and of a YAML file for each row.
        out: Folder for runs, ROW.SEED.json, table.md and table.svg.
        corpus: A corpus that data.build wrote.
        teacher: Folder or Hub id of the teacher's CLIP.
        data: Captions of the retrieval benchmark.
        images: Its pictures.
        pipeline: Also draw with this pipeline.
        prompts: Prompts to draw.
        recogniser: Folder of the miniature's recogniser.
        drawn: Prompts to draw, one picture each.
        only: Rows to run; by default all.
        seeds: Seeds of a row.
    """

    rows: Path
    out: Path
    corpus: Path
    teacher: str
    data: Path
    images: Path | None = None
    image_features: Path | None = None
    pipeline: str | None = None
    prompts: Path | None = None
    recogniser: Path | None = None
    drawn: int = 100
    only: list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])

    def row_names(self) -> list[str]:
        """All rows of the folder, `base` first."""
        return ["base", *sorted({path.stem for path in self.rows.glob("*.yaml")} - {"base"})]


def parse_options(arguments: list[str] | None) -> AblationOptions:
    """The command line, checked."""
    parser = ArgumentParser(prog="python -m eval.ablation", description=__doc__, exit_on_error=False)
    parser.add_class_arguments(AblationOptions, as_positional=False, skip={"image_features"})
    parser.add_argument("--image-features", type=Path | None, help="or their features")
    options = AblationOptions(**vars(parser.parse_args(arguments)))
    if (options.images is None) is (options.image_features is None):
        raise UserError("--images, --image-features: the benchmark needs one of them")
    if options.pipeline and not (options.prompts and options.recogniser):
        raise UserError("--pipeline: needs --prompts to draw and the --recogniser that reads the pictures")
    if not (options.rows / "base.yaml").is_file():
        raise UserError(f"--rows {options.rows}: no base.yaml in it")
    names = options.row_names()
    if unknown := set(options.only or ()) - set(names):
        raise UserError(f"--only {min(unknown)}: no such row in {options.rows}; there are {', '.join(names)}")
    return options


def run_ablation(arguments: list[str] | None = None) -> str:
    """Run what is missing, seed by seed, and write and return the table."""
    options = parse_options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.row_names()
    for seed in options.seeds:
        for name in options.only or names:
            if not (options.out / f"{name}.{seed}.json").is_file():
                write_json(_run_row(options, name, seed), options.out / f"{name}.{seed}.json")
    results = load_results(options.out, names)
    write_text(markdown_table(results), options.out / "table.md")
    write_text(dot_plot_svg(results), options.out / "table.svg")
    return markdown_table(results)


def _run_row(options: AblationOptions, name: str, seed: int) -> dict[str, Any]:
    """Distil, export and score one row with one seed."""
    folder = options.out / f"{name}.{seed}"
    student, result = folder / "student", folder / "retrieval.json"
    files = [options.rows / "base.yaml", *([options.rows / f"{name}.yaml"] if name != "base" else [])]
    configs = [argument for file in files for argument in ("--config", file)]
    seconds = _call("scripts/distill.py", *configs, "--teacher", options.teacher, "--data.corpus", options.corpus,
          "--train.seed", seed, "--data.token_store", options.out / "tokens", "--out_dir", folder / "run")  # fmt: skip
    _call("scripts/export.py", "--run", folder / "run", "--out", student)
    images = ("--images", options.images) if options.images else ("--image-features", options.image_features)
    _call("-m", "eval.flickr30k_cn", "--student", student, "--clip", options.teacher, "--title", options.data.stem,
          "--data", options.data, *images, "--out", result)  # fmt: skip
    retrieval = read_json(result)
    record: dict[str, Any] = {
        "row": name, "seed": seed, "files": {file.name: file.read_text(encoding="utf-8") for file in files},
        "retrieval": {key: value["percent"] for key, value in retrieval["ratios"].items()},
        "interval": {key: value["ci95"] for key, value in retrieval["ratios"].items()},
        "sha256": {**hashes([*files, options.corpus / "report.json"]), **retrieval["settings"]["sha256"]},
        "commit": commit(), "cost": {"seconds": seconds},
    }  # fmt: skip
    if options.pipeline:
        _call("-m", "eval.generation", "--pipeline", options.pipeline, "--student", student,
              "--prompts", options.prompts, "--recogniser", options.recogniser, "--limit", options.drawn,
              "--seeds", 1, "--drawing.steps", 12, "--out", folder / "drawn")  # fmt: skip
        record["drawn"] = _generation_scores(read_json(folder / "drawn" / "result.json"))
    return record


def _generation_scores(result: Mapping[str, Any]) -> dict[str, float]:
    means = {
        f"{measure}.{name}": value["mean"]
        for measure in ("psnr", "prediction_error", "things", "read_exact")
        for name, value in result[measure].items()
    }
    shares = result["things_share_of_teacher"]
    return means | {f"things_share.{name}": 100 * share for name, share in shares.items()}


def _call(*arguments: object) -> float:
    """Run one of the project's commands; returns its CPU seconds."""
    before = _children_seconds()
    run_subcommand(*map(str, arguments))
    return _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run an ablation and print its table."""
    print(run_ablation())


if __name__ == "__main__":
    run_cli(main)
