"""What a report is made of: results of benchmarks, curves of runs, comparisons of pairs; known by their content."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.command import UserError
from eval.result import METRICS


@dataclass(frozen=True)
class Sources:
    """Everything that was found, each under the name of its file or run."""

    results: dict[str, dict[str, Any]]
    curves: dict[str, list[dict[str, float]]]
    pairs: dict[str, dict[str, Any]]


def gather(paths: Sequence[Path]) -> Sources:
    """Read result and pair files, and run folders with their metrics.jsonl and every JSON of theirs that is known."""
    results: dict[str, dict[str, Any]] = {}
    curves: dict[str, list[dict[str, float]]] = {}
    pairs: dict[str, dict[str, Any]] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give result files, or folders of runs")
        metrics = path / "metrics.jsonl"
        if metrics.is_file():
            curves[path.name] = _lines(metrics)
        files = [path] if path.is_file() else sorted(path.glob("*.json"))
        known = 0
        for file in files:
            value = _json(file)
            name = file.stem if path.is_file() else f"{path.name}/{file.stem}"
            if _is_result(value):
                results[name] = value
                known += 1
            elif isinstance(value, dict) and value.get("kind") == "pairs":
                pairs[name] = value
                known += 1
        if not known and not metrics.is_file():
            raise UserError(f"{path}: no result of a benchmark, no pairs and no metrics.jsonl in it")
    return Sources(results, curves, pairs)


def _is_result(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("rows"), list)
        and isinstance(value.get("settings"), dict)
        and all(isinstance(row, dict) and set(METRICS) <= set(row) for row in value["rows"])
    )


def _json(path: Path) -> Any:  # noqa: ANN401  any JSON
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON in UTF-8 ({error}); is the file cut short?") from error


def _lines(path: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl; a last line that a killed run left half-written is dropped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}:{number}: not JSON ({error.msg})") from error
    return rows
