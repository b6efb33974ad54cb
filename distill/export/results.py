"""The result file of a benchmark: its metrics and schema, and its scores on a model card.

`python -m eval.NAME --out` writes it, for a student's weights or for one of its ONNX files; the card, the Hub's model
index and the report read it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired

from huggingface_hub import EvalResult
from typing_extensions import TypedDict

from data.cli import UserError
from data.files import read_json, sha256, validated

REWRITE_HINT = "write it again with python -m eval.NAME --out"
Interval = tuple[float, float]
MetricKey = Literal["t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mr"]


@dataclass(frozen=True)
class Metric:
    """A retrieval metric, in percent: a recall in one direction, or (None) the mean of all."""

    key: MetricKey
    label: str
    direction: Literal["t2i", "i2t"] | None = None


METRICS = (
    Metric("t2i_r1", "text-to-image R@1", "t2i"),
    Metric("t2i_r5", "text-to-image R@5", "t2i"),
    Metric("t2i_r10", "text-to-image R@10", "t2i"),
    Metric("i2t_r1", "image-to-text R@1", "i2t"),
    Metric("i2t_r5", "image-to-text R@5", "i2t"),
    Metric("i2t_r10", "image-to-text R@10", "i2t"),
    Metric("mr", "mean recall"),
)
"""All metrics, in the order in which results, tables and arrays of scores list them."""
RECALLS, MEAN_RECALL = METRICS[:-1], METRICS[-1]
ROW_NOTES = {
    ("teacher", "zh_en"): "on translations of the Chinese",
    ("teacher", "en"): "reference",
    ("teacher", "zh"): "floor",
    ("teacher", "zh_hant"): "floor",
}
"""Notes on the rows (model, captions) that a student's rows are compared with."""
_CAPTIONS = {
    "zh_en": "translations of the Chinese",
    "zh": "Chinese",
    "zh_hant": "traditional Chinese",
    "en": "English",
    "en_all": "all English captions",
}


def ratio_title(name: str) -> str:
    """The ratio "student-zh/teacher-en" in words; a domain before it is kept. Any other name comes back as it is."""
    parts = re.fullmatch(r"(.*: )?(.+)-(\w+)/(.+)-(\w+)", name)
    if parts is None:
        return name
    domain, model, captions, reference, reference_captions = parts.groups(default="")
    share = f"{model} on {_CAPTIONS.get(captions, captions)}, share of the {reference}"
    return f"{domain}{share} on {_CAPTIONS.get(reference_captions, reference_captions)}"


WEIGHTS_FILE = "model.safetensors"


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
    """A caption as a query: its right images, the five that came first, and from 1 the rank of the first right one."""

    model: str
    language: str
    caption: str
    right: list[str]
    found: list[str]
    place: int


class TranslationSample(TypedDict):
    """A pair and its generated translation."""

    en: str
    zh: str
    said: str


class TranslationJson(TypedDict):
    """Translation of one domain in one direction."""

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
    """Settings on which the scores depend; `sha256` is of each file that was read, by path."""

    benchmark: str
    images: int
    protocol: str
    max_length: int
    precision: str
    student: str
    sha256: dict[str, str]


class ResultJson(TypedDict):
    """The whole file; keys that are not named here may stand beside these."""

    rows: list[RowJson]
    ratios: NotRequired[dict[str, RatioJson]]
    examples: NotRequired[list[ExampleJson]]
    translations: NotRequired[list[TranslationJson]]
    settings: SettingsJson


@dataclass(frozen=True)
class BenchmarkResult:
    """A result file that was read."""

    path: Path
    rows: list[RowJson]
    ratios: dict[str, RatioJson]
    translations: list[TranslationJson]
    settings: SettingsJson

    @property
    def scored_file(self) -> str:
        """The file that was scored, below the student's folder."""
        student = Path(self.settings["student"])
        return f"onnx/{student.name}" if student.suffix == ".onnx" else WEIGHTS_FILE

    def labelled(self, text: str, separator: str) -> str:
        """`text`, with the name of the scored file where it is not the student's weights."""
        return text if self.scored_file == WEIGHTS_FILE else f"{text}{separator}{self.scored_file}"

    def benchmark_label(self, row: RowJson) -> str:
        """The benchmark, and the domain where it has several."""
        return ", ".join([self.settings["benchmark"], *([row["domain"]] if "domain" in row else [])])

    def check_weights(self, folder: Path) -> None:
        """Raise UserError where the student in `folder` has other weights; a result of a Hub id has no hash."""
        path, student = folder / self.scored_file, Path(self.settings["student"])
        if not path.is_file():
            raise UserError(f"--results {self.path}: of {self.scored_file}, which is not exported; add --parts onnx")
        recorded = self.settings["sha256"].get(str(student if student.suffix == ".onnx" else student / WEIGHTS_FILE))
        if recorded not in (None, sha256(path)):
            raise UserError(
                f"--results {self.path}: of another {self.scored_file} than this one; score this student again"
            )


def read_results(paths: Sequence[Path]) -> tuple[BenchmarkResult, ...]:
    """The result files of benchmarks; anything else raises UserError."""
    loaded = []
    for path in paths:
        result = validated(read_json(path), ResultJson, f"--results {path}: no result of a benchmark", REWRITE_HINT)
        ratios, translations = result.get("ratios", {}), result.get("translations", [])
        loaded.append(BenchmarkResult(path, result["rows"], ratios, translations, result["settings"]))
    return tuple(loaded)


def model_index(results: Sequence[BenchmarkResult]) -> list[EvalResult]:
    """The student's scores in the Hub's form."""
    return [
        EvalResult(
            task_type="zero-shot-retrieval",
            task_name=f"Zero-shot retrieval ({row['language']})",
            dataset_type=result.settings["benchmark"].lower(),
            dataset_name=f"{result.benchmark_label(row)} ({row['language']})",
            # Without it the Hub's client puts both languages, and all domains, under the first one.
            dataset_config=" ".join([row["language"], *([row["domain"]] if "domain" in row else [])]),
            metric_type=metric.key,
            metric_name=result.labelled(metric.label, ", "),
            metric_value=row[metric.key],
        )
        for result in results
        for row in result.rows
        if row["model"] == "student"
        for metric in METRICS
    ]


def retrieval_lines(results: Sequence[BenchmarkResult]) -> list[str]:
    """Table rows of the card: benchmark, model, captions, recalls in both directions, mean recall, its interval."""
    lines = []
    for result in results:
        for row in result.rows:
            to_image, to_text = (
                " / ".join(f"{row[metric.key]:.1f}" for metric in RECALLS if metric.direction == direction)
                for direction in ("t2i", "i2t")
            )
            model = result.labelled("student", " as ") if row["model"] == "student" else row["model"]
            if note := ROW_NOTES.get((row["model"], row["language"])):
                model = f"{model} ({note})"
            low, high = row["ci95"]["mr"]
            lines.append(
                f"| {result.benchmark_label(row)} | {model} | {row['language']} | {to_image} | {to_text} | "
                f"{row['mr']:.2f} | {low:.2f} to {high:.2f} |"
            )
    return list(dict.fromkeys(lines))  # a teacher that was scored beside two files stands here once


def translation_lines(results: Sequence[BenchmarkResult]) -> list[str]:
    """Table rows of the card for translations of held-out sentences, by the run's decoder or another model."""
    lines = [
        f"| {row['domain']} | {row['model']} | {row['direction']} | {row['bleu']:.2f} | {row['chrf']:.2f} |"
        for result in results
        for row in result.translations
    ]
    return list(dict.fromkeys(lines))
