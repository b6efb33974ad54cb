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
from data.files import read_json, validated

REWRITE_HINT = "write it again with python -m eval.NAME --out"
Interval = tuple[float, float]
MetricKey = Literal["t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mr"]


@dataclass(frozen=True)
class Metric:
    """A retrieval metric, in percent: recall at `cutoff` in one direction; both are None for the mean recall."""

    key: MetricKey
    label: str
    direction: Literal["t2i", "i2t"] | None = None
    cutoff: int | None = None


METRICS = (
    Metric("t2i_r1", "text-to-image R@1", "t2i", 1),
    Metric("t2i_r5", "text-to-image R@5", "t2i", 5),
    Metric("t2i_r10", "text-to-image R@10", "t2i", 10),
    Metric("i2t_r1", "image-to-text R@1", "i2t", 1),
    Metric("i2t_r5", "image-to-text R@5", "i2t", 5),
    Metric("i2t_r10", "image-to-text R@10", "i2t", 10),
    Metric("mr", "mean recall"),
)
"""All metrics, in the order in which results, tables and arrays of scores list them."""
RECALLS, MEAN_RECALL = METRICS[:-1], METRICS[-1]


class RowIntervals(TypedDict):
    """95 % interval of the mean recall, in percent; a result has one for each of METRICS."""

    mr: Interval


class RowJson(TypedDict):
    """One model on one language, and of a corpus on one domain; the seven scores are METRICS, in percent."""

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
    ci95: RowIntervals


class RatioJson(TypedDict):
    """Mean recall of one row in percent of another's."""

    percent: float
    ci95: Interval


class ExampleJson(TypedDict):
    """A caption as a query and what it found."""

    model: str
    language: str
    caption: str
    right: list[str]
    found: list[str]
    place: int


class TranslationSample(TypedDict):
    """A pair and what was said for it."""

    en: str
    zh: str
    said: str


class TranslationJson(TypedDict):
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
    samples: list[TranslationSample]


class SettingsJson(TypedDict):
    """What the scores depend on."""

    benchmark: str
    images: int
    protocol: str
    max_length: int
    precision: str
    student: str
    sha256: dict[str, str]


class ResultJson(TypedDict):
    """The whole file."""

    rows: list[RowJson]
    ratios: NotRequired[dict[str, RatioJson]]
    examples: NotRequired[list[ExampleJson]]
    translations: NotRequired[list[TranslationJson]]
    settings: SettingsJson


WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BenchmarkResult:
    """A result file of a benchmark, as `python -m eval.NAME --out` wrote it."""

    path: Path
    rows: list[RowJson]
    translations: list[TranslationJson]
    settings: SettingsJson

    @property
    def scored_file(self) -> str:
        """What was scored, below the student's folder."""
        student = Path(self.settings["student"])
        return f"onnx/{student.name}" if student.suffix == ".onnx" else WEIGHTS_FILE

    def model_label(self, row: RowJson) -> str:
        """Who a row is about; the student in another form than its weights by the name of the file."""
        of_file = row["model"] == "student" and self.scored_file != WEIGHTS_FILE
        return f"student as {self.scored_file}" if of_file else str(row["model"])

    def benchmark_label(self, row: RowJson) -> str:
        """The benchmark, and the domain where it has several."""
        return ", ".join([self.settings["benchmark"], *([row["domain"]] if "domain" in row else [])])


def read_results(paths: Sequence[Path]) -> tuple[BenchmarkResult, ...]:
    """The result files of benchmarks; anything else raises UserError."""
    loaded = []
    for path in paths:
        result = validated(read_json(path), ResultJson, f"--results {path}: no result of a benchmark", REWRITE_HINT)
        loaded.append(BenchmarkResult(path, result["rows"], result.get("translations", []), result["settings"]))
    return tuple(loaded)


def check_same_weights(folder: Path, results: Sequence[BenchmarkResult]) -> None:
    """Raise UserError for a result of other weights than those in `folder`; one of a Hub id has no hash to compare."""
    for result in results:
        path, source = folder / result.scored_file, Path(result.settings["student"])
        if not path.is_file():
            raise UserError(
                f"--results {result.path}: of {result.scored_file}, which is not exported; add --parts onnx"
            )
        recorded_sha256 = result.settings["sha256"].get(
            str(source if source.suffix == ".onnx" else source / WEIGHTS_FILE)
        )
        with path.open("rb") as file:
            actual_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if recorded_sha256 not in (None, actual_sha256):
            raise UserError(
                f"--results {result.path}: of another {result.scored_file} than this one; score this student again"
            )


def model_index(results: Sequence[BenchmarkResult]) -> list[EvalResult]:
    """The student's scores, as the Hub reads them."""
    return [
        EvalResult(
            task_type="zero-shot-retrieval",
            task_name=f"Zero-shot retrieval ({row['language']})",
            dataset_type=each.settings["benchmark"].lower(),
            dataset_name=f"{each.benchmark_label(row)} ({row['language']})",
            # Without it the Hub's client puts both languages, and all domains, under the first one.
            dataset_config=" ".join([row["language"], *([row["domain"]] if "domain" in row else [])]),
            metric_type=metric.key,
            metric_name=metric.label if each.scored_file == WEIGHTS_FILE else f"{metric.label}, {each.scored_file}",
            metric_value=row[metric.key],
        )
        for each in results
        for row in each.rows
        if row["model"] == "student"
        for metric in METRICS
    ]


def results_section(results: Sequence[BenchmarkResult]) -> str:
    """The section of the card; "" where nothing was scored."""
    if not results:
        return ""
    lines = []
    for result in results:
        for row in result.rows:
            recalls = [f"{row[metric.key]:.1f}" for metric in RECALLS]
            low, high = row["ci95"]["mr"]
            lines.append(
                f"| {result.benchmark_label(row)} | {result.model_label(row)} | {row['language']} | "
                f"{' / '.join(recalls[:3])} | "
                f"{' / '.join(recalls[3:])} | {row['mr']:.2f} | {low:.2f} to {high:.2f} |"
            )
    protocols = {
        (each.settings["protocol"], each.settings["max_length"], each.settings["precision"]) for each in results
    }
    settings = "; ".join(
        f"{name}, at most {length} tokens, {precision}" for name, length, precision in sorted(protocols)
    )
    return "\n".join(
        ["## Results", "", "| benchmark | model | captions | T2I R@1 / 5 / 10 | I2T R@1 / 5 / 10 | MR | 95 % |",
         "|---|---|---|---|---|---|---|",
         *dict.fromkeys(lines),  # a teacher that was scored beside two files stands here once
         "", f"Protocol: {settings}. Intervals by bootstrap over images, in translation over sentences.",
         *_translation_table(results)]
    )  # fmt: skip


def _translation_table(results: Sequence[BenchmarkResult]) -> list[str]:
    """What the run's decoder, or a translation model, made of held-out sentences."""
    lines = [
        f"| {row['domain']} | {row['model']} | {row['direction']} | {row['bleu']:.2f} | {row['chrf']:.2f} |"
        for each in results
        for row in each.translations
    ]
    head = ["", "| held-out domain | model | direction | BLEU | chrF |", "|---|---|---|---|---|"]
    return [*head, *dict.fromkeys(lines)] if lines else []
