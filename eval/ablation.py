"""`python -m eval.ablation --rows DIR --corpus CORPUS ... --out OUT`: one question a row, several seeds, one table.

`DIR/base.yaml` is a run's configuration; every other YAML file in it holds what its row changes. A row is distilled,
exported and scored with the shipped commands, in a folder of its own; a row and seed whose JSON is there is not run
again.

The results of an ablation as a Markdown table and as a picture: means over seeds with 95 % intervals.
"""

import json
import math
import resource
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from data.cli import UserError, commit, run_cli, run_subcommand
from data.files import hashes, write_json, write_text
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
    """[row][measure] = values by seed, of the rows that have a ROW.SEED.json in `out`, in the order of `names`."""
    values_by_row = {}
    for name in names:
        seeds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"{name}.[0-9]*.json"))]
        if seeds:
            values_by_row[name] = {
                measure: [each[part][key] for each in seeds if key in each.get(part, {})]
                for measure, (part, key) in ABLATION_MEASURES.items()
            }
    return values_by_row


def markdown_table(values: Results) -> str:
    """A Markdown line for each row."""
    lines = ["| row | seeds | " + " | ".join(ABLATION_MEASURES) + " |", "|---|---|" + "---|" * len(ABLATION_MEASURES)]
    for name, measures in values.items():
        seeds = max(map(len, measures.values()))
        lines.append(f"| {name} | {seeds} | " + " | ".join(map(mean_and_half_width, measures.values())) + " |")
    return "\n".join(lines) + "\n"


def dot_plot_svg(values: Results) -> str:
    """The same as dots, SVG: the measures that have values."""
    panels = {measure: {name: each[measure] for name, each in values.items()} for measure in ABLATION_MEASURES}
    return dot_plot({name: panel for name, panel in panels.items() if any(panel.values())}, list(values), t_half_width)


def mean_and_half_width(values: Sequence[float]) -> str:
    """The mean, and from two seeds on the half width of its interval."""
    if not values:
        return "-"
    digits = 1 if abs(mean(values)) >= 10 else 3
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {t_half_width(values):.{digits}f}" if len(values) in T975 else text


def t_half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean by Student's t; 0 where there is no telling (one value, or more than ten)."""
    return T975[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) in T975 else 0.0


def parse_args(arguments: list[str] | None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(prog="python -m eval.ablation", description=__doc__, exit_on_error=False)
    parser.add_argument("--rows", type=Path, required=True, help="folder of base.yaml and of a YAML file for each row")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for runs, ROW.SEED.json, table.md and table.svg"
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--teacher", type=str, required=True, help="folder or Hub id of the teacher's CLIP")
    parser.add_argument("--data", type=Path, required=True, help="captions of the retrieval benchmark")
    parser.add_argument("--images", type=Path | None, help="its pictures")
    parser.add_argument("--image-features", type=Path | None, help="or their features")
    parser.add_argument("--pipeline", type=str | None, help="also draw with this pipeline")
    parser.add_argument("--prompts", type=Path | None, help="prompts to draw")
    parser.add_argument("--recogniser", type=Path | None, help="folder of the miniature's recogniser")
    parser.add_argument("--drawn", type=int, default=100, help="prompts to draw, one picture each")
    parser.add_argument("--only", type=list[str] | None, help="rows to run; by default all")
    parser.add_argument("--seeds", type=list[int], default=[0, 1, 2])
    args = parser.parse_args(arguments)
    if (args.images is None) is (args.image_features is None):
        raise UserError("--images, --image-features: the benchmark needs one of them")
    if args.pipeline and not (args.prompts and args.recogniser):
        raise UserError("--pipeline: needs --prompts to draw and the --recogniser that reads the pictures")
    return args


def run_ablation(arguments: list[str] | None = None) -> str:
    """Run what is missing, seed by seed, and write, print and return the table."""
    args = parse_args(arguments)
    if not (args.rows / "base.yaml").is_file():
        raise UserError(f"--rows {args.rows}: no base.yaml in it")
    names = ["base", *sorted({path.stem for path in args.rows.glob("*.yaml")} - {"base"})]
    if unknown := set(args.only or ()) - set(names):
        raise UserError(f"--only {sorted(unknown)[0]}: no such row in {args.rows}; there are {', '.join(names)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name in args.only or names:
            if not (args.out / f"{name}.{seed}.json").is_file():
                write_json(_run_row(args, name, seed), args.out / f"{name}.{seed}.json")
    seed_values = load_results(args.out, names)
    table = markdown_table(seed_values)
    write_text(table, args.out / "table.md")
    write_text(dot_plot_svg(seed_values), args.out / "table.svg")
    print(table)
    return table


def _run_row(args: Namespace, name: str, seed: int) -> dict[str, Any]:
    """Distil, export and score one row with one seed."""
    folder = args.out / f"{name}.{seed}"
    student, files = folder / "student", [args.rows / "base.yaml"]
    files += [args.rows / f"{name}.yaml"] if name != "base" else []
    configs = [word for file in files for word in ("--config", file)]
    seconds = _call("scripts/distill.py", *configs, "--teacher", args.teacher, "--data.corpus", args.corpus,
                    "--train.seed", seed, "--data.token_store", args.out / "tokens",
                    "--out_dir", folder / "run")  # fmt: skip
    _call("scripts/export.py", "--run", folder / "run", "--out", student)
    gallery = ("--images", args.images) if args.images else ("--image-features", args.image_features)
    _call("-m", "eval.flickr30k_cn", "--student", student, "--clip", args.teacher, "--title", args.data.stem,
          "--data", args.data, *gallery, "--out", folder / "retrieval.json")  # fmt: skip
    retrieval = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
    record: dict[str, Any] = {
        "row": name, "seed": seed, "files": {file.name: file.read_text(encoding="utf-8") for file in files},
        "retrieval": {key: value["percent"] for key, value in retrieval["ratios"].items()},
        "interval": {key: value["ci95"] for key, value in retrieval["ratios"].items()},
        "sha256": {**hashes([*files, args.corpus / "report.json"]), **retrieval["settings"]["sha256"]},
        "commit": commit(), "cost": {"seconds": seconds},
    }  # fmt: skip
    if args.pipeline:
        _call("-m", "eval.generation", "--pipeline", args.pipeline, "--student", student, "--prompts", args.prompts,
              "--recogniser", args.recogniser, "--limit", args.drawn, "--seeds", 1, "--drawing.steps", 12,
              "--out", folder / "drawn")  # fmt: skip
        drawn = json.loads((folder / "drawn" / "result.json").read_text(encoding="utf-8"))
        measures = ("psnr", "prediction_error", "things", "read_exact")
        record["drawn"] = {f"{measure}.{who}": each["mean"] for measure in measures
                           for who, each in drawn[measure].items()}  # fmt: skip
        shares = drawn["things_share_of_teacher"].items()
        record["drawn"] |= {f"things_share.{who}": 100 * share for who, share in shares}
    return record


def _call(*arguments: str | int | Path) -> float:
    """Run one of the project's commands; returns its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_subcommand(*map(str, arguments))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    run_cli(run_ablation)
