"""metrics.jsonl: one line a logged step, in step with the checkpoint that a run resumes from."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from data.cli import UserError


class MetricsFile:
    """Appends records; opening it at a step forgets what was logged beyond that step before a kill."""

    def __init__(self, path: Path, step: int) -> None:
        """Open `path`, dropping records of later steps and a line that a kill cut short."""
        kept = [line for number, line in enumerate(_whole_lines(path), 1) if _step(path, number, line) <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one record, readable at once."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines[:-1]  # the text after the last newline is empty, or was cut


def _step(path: Path, number: int, line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}:{number}: not a record with a step; remove that line and start again") from error


class TermAverages:
    """Sums of the terms and the pairs since they were last read; nothing leaves the device before that."""

    def __init__(self) -> None:
        """Start counting."""
        self._sums: dict[str, torch.Tensor] = {}
        self._seen: dict[str, int] = {}  # steps that had the term; some losses count on full steps alone
        self._steps, self._pairs, self._since = 0, 0, time.perf_counter()

    def add(self, terms: Mapping[str, torch.Tensor], pairs: int) -> None:
        """Count one step."""
        for name, term in terms.items():
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            self._seen[name] = self._seen.get(name, 0) + 1
        self._steps, self._pairs = self._steps + 1, self._pairs + pairs

    def pop(self) -> dict[str, float]:
        """Means of the terms over the steps that had them, of `loss` over all, and `pairs_per_second`; starts anew."""
        sums = {name: value.item() for name, value in self._sums.items()}
        values = {name: value / self._seen[name] for name, value in sums.items()}
        values["loss"] = sum(value for name, value in sums.items() if name != "grad_norm") / self._steps
        values["pairs_per_second"] = self._pairs / (time.perf_counter() - self._since)
        self._sums, self._seen, self._steps, self._pairs, self._since = {}, {}, 0, 0, time.perf_counter()
        return values
