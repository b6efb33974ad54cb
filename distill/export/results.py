"""The scores on a model card: of the encoder itself and of its ONNX files, in a table and as the Hub's model index.

The result file of a benchmark, as `python -m eval.NAME --out` writes it: what the card and the report rely on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired

from huggingface_hub import EvalResult
from typing_extensions import TypedDict

from data.cli import UserError
from data.files import read_json, shaped

FIX = "write it again with python -m eval.NAME --out"
Interval = tuple[float, float]
Metric = Literal["t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mr"]


class Intervals(TypedDict):
    """Of the scores of a row."""

    mr: Interval


class Row(TypedDict):
    """One model on one language, and of a corpus on one domain."""

    domain: NotRequired[str]
    model: str
    language: str
    t2i_r1: float
    t2i_r5: float
    t2i_r10: float
    i2t_r1: float
    i2t_r5: float
    i2t_r10: float
    mr: float
    ci95: Intervals


class Ratio(TypedDict):
    """Mean recall of one row in percent of another's."""

    percent: float
    ci95: Interval


class Example(TypedDict):
    """A caption as a query and what it found."""

    model: str
    language: str
    caption: str
    right: list[str]
    found: list[str]
    place: int


class Sample(TypedDict):
    """A pair and what was said for it."""

    en: str
    zh: str
    said: str


class Translation(TypedDict):
    """One domain in one direction."""

    domain: str
    model: str
    direction: str
    sentences: int
    bleu: float
    bleu_ci95: Interval
    bleu_signature: str
    chrf: float
    chrf_ci95: Interval
    samples: list[Sample]


class Settings(TypedDict):
    """What the scores depend on."""

    benchmark: str
    images: int
    protocol: str
    max_length: int
    precision: str
    student: str
    sha256: dict[str, str]


class Result(TypedDict):
    """The whole file."""

    rows: list[Row]
    ratios: NotRequired[dict[str, Ratio]]
    examples: NotRequired[list[Example]]
    translations: NotRequired[list[Translation]]
    settings: Settings


WEIGHTS = "model.safetensors"
METRICS: dict[Metric, str] = {
    "t2i_r1": "text-to-image R@1", "t2i_r5": "text-to-image R@5", "t2i_r10": "text-to-image R@10",
    "i2t_r1": "image-to-text R@1", "i2t_r5": "image-to-text R@5", "i2t_r10": "image-to-text R@10",
    "mr": "mean recall",
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """A result file of a benchmark, as `python -m eval.NAME --out` wrote it."""

    path: Path
    rows: list[Row]
    translations: list[Translation]
    settings: Settings

    @property
    def file(self) -> str:
        """What was scored, below the student's folder."""
        student = Path(self.settings["student"])
        return f"onnx/{student.name}" if student.suffix == ".onnx" else WEIGHTS

    def model(self, row: Row) -> str:
        """Who a row is about; the student in another form than its weights by the name of the file."""
        of_file = row["model"] == "student" and self.file != WEIGHTS
        return f"student as {self.file}" if of_file else str(row["model"])

    def benchmark(self, row: Row) -> str:
        """The benchmark, and the domain where it has several."""
        return ", ".join([self.settings["benchmark"], *([row["domain"]] if "domain" in row else [])])


def read_results(paths: Sequence[Path]) -> tuple[Scored, ...]:
    """The result files of benchmarks; anything else raises UserError."""
    found = []
    for path in paths:
        result = shaped(read_json(path), Result, f"--results {path}: no result of a benchmark", FIX)
        found.append(Scored(path, result["rows"], result.get("translations", []), result["settings"]))
    return tuple(found)


def refuse_others(folder: Path, results: Sequence[Scored]) -> None:
    """Raise UserError for a result of other weights than those in `folder`; one of a Hub id has no hash to compare."""
    for each in results:
        path, source = folder / each.file, Path(each.settings["student"])
        if not path.is_file():
            raise UserError(f"--results {each.path}: of {each.file}, which is not exported; add --parts onnx")
        told = each.settings["sha256"].get(str(source if source.suffix == ".onnx" else source / WEIGHTS))
        with path.open("rb") as file:
            here = hashlib.file_digest(file, "sha256").hexdigest()
        if told not in (None, here):
            raise UserError(f"--results {each.path}: of another {each.file} than this one; score this student again")


def model_index(results: Sequence[Scored]) -> list[EvalResult]:
    """The student's scores, as the Hub reads them."""
    return [
        EvalResult(
            task_type="zero-shot-retrieval",
            task_name=f"Zero-shot retrieval ({row['language']})",
            dataset_type=each.settings["benchmark"].lower(),
            dataset_name=f"{each.benchmark(row)} ({row['language']})",
            # Without it the Hub's client puts both languages, and all domains, under the first one.
            dataset_config=" ".join([row["language"], *([row["domain"]] if "domain" in row else [])]),
            metric_type=name,
            metric_name=said if each.file == WEIGHTS else f"{said}, {each.file}",
            metric_value=row[name],
        )
        for each in results
        for row in each.rows
        if row["model"] == "student"
        for name, said in METRICS.items()
    ]


def section(results: Sequence[Scored]) -> str:
    """The section of the card; "" where nothing was scored."""
    if not results:
        return ""
    lines = []
    for each in results:
        for row in each.rows:
            six = [f"{row[name]:.1f}" for name in list(METRICS)[:6]]
            low, high = row["ci95"]["mr"]
            lines.append(
                f"| {each.benchmark(row)} | {each.model(row)} | {row['language']} | {' / '.join(six[:3])} | "
                f"{' / '.join(six[3:])} | {row['mr']:.2f} | {low:.2f} to {high:.2f} |"
            )
    told = {(each.settings["protocol"], each.settings["max_length"], each.settings["precision"]) for each in results}
    settings = "; ".join(f"{name}, at most {length} tokens, {precision}" for name, length, precision in sorted(told))
    return "\n".join(
        ["## Results", "", "| benchmark | model | captions | T2I R@1 / 5 / 10 | I2T R@1 / 5 / 10 | MR | 95 % |",
         "|---|---|---|---|---|---|---|",
         *dict.fromkeys(lines),  # a teacher that was scored beside two files stands here once
         "", f"Protocol: {settings}. Intervals by bootstrap over images, in translation over sentences.",
         *_translations(results)]
    )  # fmt: skip


def _translations(results: Sequence[Scored]) -> list[str]:
    """What the run's decoder, or a translation model, made of held-out sentences."""
    lines = [
        f"| {row['domain']} | {row['model']} | {row['direction']} | {row['bleu']:.2f} | {row['chrf']:.2f} |"
        for each in results
        for row in each.translations
    ]
    head = ["", "| held-out domain | model | direction | BLEU | chrF |", "|---|---|---|---|---|"]
    return [*head, *dict.fromkeys(lines)] if lines else []
