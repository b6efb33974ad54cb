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

from data.cli import UserError, command, run_stage
from data.files import write_json, write_text
from eval.provenance import commit, hashes
from eval.report.charts import dots

T975 = dict(enumerate((12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262), 2))  # Student's t by seeds
MEASURES = {
    "zh/teacher en, MR %": ("retrieval", "student-zh/teacher-en"),
    "en/teacher en, MR %": ("retrieval", "student-en/teacher-en"),
    "zh things/teacher's %": ("drawn", "things_share.student-zh"),
    "mixed things/teacher's %": ("drawn", "things_share.student-mixed"),
    "zh prediction error": ("drawn", "prediction_error.student-zh"),
    "en PSNR, dB": ("drawn", "psnr.student-en"),
    "distilling, CPU s": ("cost", "seconds"),
}

Results = Mapping[str, Mapping[str, list[float]]]


def results(out: Path, names: Iterable[str]) -> Results:
    """[row][measure] = values by seed, of the rows that have a ROW.SEED.json in `out`, in the order of `names`."""
    found = {}
    for name in names:
        seeds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"{name}.[0-9]*.json"))]
        if seeds:
            found[name] = {measure: _values(seeds, *where) for measure, where in MEASURES.items()}
    return found


def _values(seeds: Iterable[Mapping[str, Any]], part: str, key: str) -> list[float]:
    return [each[part][key] for each in seeds if key in each.get(part, {})]


def table(found: Results) -> str:
    """A Markdown line for each row."""
    lines = ["| row | seeds | " + " | ".join(MEASURES) + " |", "|---|---|" + "---|" * len(MEASURES)]
    for name, measures in found.items():
        seeds = max(map(len, measures.values()))
        lines.append(f"| {name} | {seeds} | " + " | ".join(map(spread, measures.values())) + " |")
    return "\n".join(lines) + "\n"


def picture(found: Results) -> str:
    """The same as dots, SVG: the measures that have values."""
    shown = [measure for measure in MEASURES if any(measures[measure] for measures in found.values())]
    panels = {measure: {name: measures[measure] for name, measures in found.items()} for measure in shown}
    return dots(panels, list(found), half_width)


def spread(values: Sequence[float]) -> str:
    """The mean, and from two seeds on the half width of its interval."""
    if not values:
        return "-"
    digits = 1 if abs(mean(values)) >= 10 else 3
    found = f"{mean(values):.{digits}f}"
    return f"{found} ± {half_width(values):.{digits}f}" if len(values) in T975 else found


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean by Student's t; 0 where there is no telling (one value, or more than ten)."""
    return T975[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) in T975 else 0.0


def parse(arguments: list[str] | None) -> Namespace:
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
    given = parser.parse_args(arguments)
    if (given.images is None) is (given.image_features is None):
        raise UserError("--images, --image-features: the benchmark needs one of them")
    if given.pipeline and not (given.prompts and given.recogniser):
        raise UserError("--pipeline: needs --prompts to draw and the --recogniser that reads the pictures")
    return given


def run(arguments: list[str] | None = None) -> str:
    """Run what is missing, seed by seed, and write and return the table."""
    given = parse(arguments)
    if not (given.rows / "base.yaml").is_file():
        raise UserError(f"--rows {given.rows}: no base.yaml in it")
    names = ["base", *sorted({path.stem for path in given.rows.glob("*.yaml")} - {"base"})]
    if unknown := set(given.only or ()) - set(names):
        raise UserError(f"--only {sorted(unknown)[0]}: no such row in {given.rows}; there are {', '.join(names)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for name in given.only or names:
            if not (given.out / f"{name}.{seed}.json").is_file():
                write_json(_row(given, name, seed), given.out / f"{name}.{seed}.json")
    found = results(given.out, names)
    write_text(table(found), given.out / "table.md")
    write_text(picture(found), given.out / "table.svg")
    return table(found)


def _row(given: Namespace, name: str, seed: int) -> dict[str, Any]:
    """Distil, export and score one row with one seed."""
    folder = given.out / f"{name}.{seed}"
    student, files = folder / "student", [given.rows / "base.yaml"]
    files += [given.rows / f"{name}.yaml"] if name != "base" else []
    seconds = _call("scripts/distill.py", *(each for file in files for each in ("--config", str(file))),
          "--teacher", given.teacher, "--data.corpus", str(given.corpus), "--train.seed", str(seed),
          "--data.token_store", str(given.out / "tokens"), "--out_dir", str(folder / "run"))  # fmt: skip
    _call("scripts/export.py", "--run", str(folder / "run"), "--out", str(student))
    shown = ["--images", str(given.images)] if given.images else ["--image-features", str(given.image_features)]
    _call("-m", "eval.flickr30k_cn", "--student", str(student), "--clip", given.teacher,
          "--title", given.data.stem, "--data", str(given.data), *shown,
          "--out", str(folder / "retrieval.json"))  # fmt: skip
    retrieval = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {
        "row": name, "seed": seed, "files": {file.name: file.read_text(encoding="utf-8") for file in files},
        "retrieval": {key: value["percent"] for key, value in retrieval["ratios"].items()},
        "interval": {key: value["ci95"] for key, value in retrieval["ratios"].items()},
        "sha256": {**hashes([*files, given.corpus / "report.json"]), **retrieval["settings"]["sha256"]},
        "commit": commit(), "cost": {"seconds": seconds},
    }  # fmt: skip
    if given.pipeline:
        _call("-m", "eval.generation", "--pipeline", given.pipeline, "--student", str(student),
              "--prompts", str(given.prompts), "--recogniser", str(given.recogniser), "--limit", str(given.drawn),
              "--seeds", "1", "--drawing.steps", "12", "--out", str(folder / "drawn"))  # fmt: skip
        drawn = json.loads((folder / "drawn" / "result.json").read_text(encoding="utf-8"))
        found["drawn"] = {
            f"{measure}.{who}": value["mean"]
            for measure in ("psnr", "prediction_error", "things", "read_exact") for who, value in drawn[measure].items()
        }  # fmt: skip
        found["drawn"] |= {
            f"things_share.{who}": 100 * share for who, share in drawn["things_share_of_teacher"].items()
        }
    return found


def _call(*arguments: str) -> float:
    """Run one of the project's commands; returns its CPU seconds."""
    before = _children_seconds()
    run_stage(*arguments)
    return _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run an ablation and print its table."""
    print(run())


if __name__ == "__main__":
    command(main)
