"""The files of a report, recognised by their content: results, generations, metrics of runs, comparisons of pairs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from data.cli import UserError, one_line
from data.files import read_json, validated
from distill.export.results import REWRITE_HINT, Interval, ResultJson
from eval.datasets.benchmark import text_lines


class MeanInterval(TypedDict):
    """Of one measure under one conditioning."""

    mean: float
    ci95: Interval


class ShownPrompt(TypedDict):
    """A prompt whose pictures were written."""

    en: str
    zh: str
    mixed: NotRequired[str | None]


class GenerationSettings(TypedDict):
    """The settings that the measures depend on."""

    prompts: int
    seeds: int
    sha256: dict[str, str]


class GenerationResult(TypedDict):
    """`result.json` of eval.generation: each measure by conditioning."""

    psnr: dict[str, MeanInterval]
    latent_distance: NotRequired[dict[str, MeanInterval]]
    prediction_error: NotRequired[dict[str, MeanInterval]]
    things: NotRequired[dict[str, MeanInterval]]
    read_exact: NotRequired[dict[str, MeanInterval]]
    shown: list[ShownPrompt]
    settings: GenerationSettings


class Cosines(TypedDict):
    """Mean cosine with the teacher's English over a group of pairs."""

    pairs: int
    zh: float
    en: float


class WorstPair(TypedDict):
    """One of the pairs with the lowest cosines."""

    cosine: float
    domain: str
    zh: str
    en: str


class PairsResult(TypedDict):
    """The JSON of eval.pairs."""

    by_domain: dict[str, Cosines]
    by_length: dict[str, Cosines]
    by_slot: dict[str, list[float]]
    worst: list[WorstPair]


class PromptScoresJson(TypedDict):
    """Scores over some prompts: R@1 of both directions and of each, in percent, and cosine; maybe read-out error."""

    prompts: int
    r1: float
    to_en_r1: float
    to_zh_r1: float
    cosine: float
    readout: NotRequired[float]
    ci95: dict[str, Interval]


class ModelPromptScores(PromptScoresJson):
    """One model on one form of the prompts."""

    model: str
    form: str


class WorstPrompt(TypedDict):
    """A prompt whose right English ranks low, the English that came first, and what the student's decoder reads."""

    zh: str
    en: str
    found: str
    rank: int
    cosine: float
    groups: list[str]
    read: NotRequired[str]


class PromptsSettings(TypedDict):
    """Settings on which the scores depend."""

    benchmark: str
    sha256: dict[str, str]


class PromptsResult(TypedDict):
    """The JSON of eval.prompts; `groups` is scores by group and value, the worst first."""

    scores: list[ModelPromptScores]
    groups: dict[str, dict[str, PromptScoresJson]]
    over_length: dict[str, float]
    worst: list[WorstPrompt]
    settings: PromptsSettings


@dataclass(frozen=True)
class GenerationRun:
    """A result of eval.generation, and the folder of its pictures."""

    result: GenerationResult
    pictures: Path


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the paths hold, by the name of its file or run."""

    results: dict[str, ResultJson] = field(default_factory=dict)
    translations: dict[str, ResultJson] = field(default_factory=dict)
    generations: dict[str, GenerationRun] = field(default_factory=dict)
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    pairs: dict[str, PairsResult] = field(default_factory=dict)
    prompts: dict[str, PromptsResult] = field(default_factory=dict)


def load_inputs(paths: Sequence[Path]) -> ReportInputs:
    """Read result, generation and pairs files; in a folder, `metrics.jsonl` and every JSON file of these kinds."""
    inputs = ReportInputs()
    for path, name in zip(paths, _distinct_names(paths), strict=True):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give result files, or folders of runs")
        metrics = path / "metrics.jsonl"
        if metrics.is_file():
            inputs.curves[name] = _read_metrics(metrics)
        files = [path] if path.is_file() else sorted(path.glob("*.json"))
        known = [_add_file(inputs, file, name if path.is_file() else f"{name}/{file.stem}") for file in files]
        if not any(known) and not metrics.is_file():
            raise UserError(
                f"{path}: no result of a benchmark, no drawings, no pairs, no prompts and no metrics.jsonl in it"
            )
    return inputs


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path: its last component, or as many as make all names different."""
    path_parts = [(path.with_suffix("") if path.is_file() else path).absolute().parts for path in paths]
    count = 1
    while len({parts[-count:] for parts in path_parts}) < len(set(path_parts)):
        count += 1
    return ["/".join(parts[-count:]) for parts in path_parts]


def _add_file(inputs: ReportInputs, file: Path, name: str) -> bool:
    """Add the content of `file`; False for a file of another kind, UserError for a damaged one."""
    value = read_json(file)
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("rows"), list) and isinstance(value.get("settings"), dict):
        results = inputs.translations if "translations" in value else inputs.results
        results[name] = validated(value, ResultJson, str(file), REWRITE_HINT)
    elif {"psnr", "shown", "settings"} <= set(value):
        result = validated(value, GenerationResult, str(file), "draw again with python -m eval.generation")
        inputs.generations[name] = GenerationRun(result, file.parent / "pictures")
    elif value.get("kind") == "pairs":
        inputs.pairs[name] = validated(value, PairsResult, str(file), "write it again with python -m eval.pairs")
    elif value.get("kind") == "prompts":
        inputs.prompts[name] = validated(value, PromptsResult, str(file), "write it again with python -m eval.prompts")
    else:
        return False
    return True


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl, without a last line that a killed run left incomplete."""
    lines = list(text_lines(path))
    rows = []
    for number, (where, line) in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            raise UserError(f"{where}: not JSON ({one_line(error)}); remove the line") from error
        rows.append(validated(row, dict[str, float], where, "remove the line"))
    return rows
