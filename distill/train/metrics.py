"""What a run measures: means of its loss terms, validation on held-out pairs, and metrics.jsonl, which keeps them.

The file has one line a logged step and is consistent with the checkpoint that a run resumes from.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data.cli import UserError
from data.files import write_text
from data.loader.token_store import DomainTokens, TokenIds
from distill.text_tower import EncoderOutput

EncodeFn = Callable[[torch.Tensor], EncoderOutput]
_BATCH = 64  # fits the memory that a training step has freed
_STEPS = "steps"


class MetricsFile:
    """Appends records; opening it at a step drops the records of later steps, logged before a kill."""

    def __init__(self, path: Path, step: int) -> None:
        """Open `path`, dropping records of later steps and a line that a kill cut short."""
        kept = [line for number, line in enumerate(_whole_lines(path), 1) if _step(path, number, line) <= step]
        write_text("".join(line + "\n" for line in kept), path)
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
    """Means of the terms since they were last read; nothing leaves the device before that."""

    def __init__(self) -> None:
        """Start counting."""
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None  # [2, names]: sums, and the number of steps that had the term
        self._pairs, self._since = 0, time.perf_counter()

    def add(self, terms: Mapping[str, torch.Tensor], pairs: int, counted: torch.Tensor) -> None:
        """Add the terms of one step, unless `counted`, a bool on the device, is false: its gradient was not finite."""
        row = {**terms, _STEPS: counted}
        new = [name for name in row if name not in self._names]
        self._names += new
        zero = torch.zeros_like(counted, dtype=torch.float32)
        values = torch.stack([row.get(name, zero).float() for name in self._names])
        present = torch.stack([zero + 1 if name in row else zero for name in self._names])
        step = torch.where(counted, torch.stack([values, present]), 0.0)
        self._sums = step if self._sums is None else step + F.pad(self._sums, (0, len(new)))
        self._pairs += pairs

    def pop(self) -> dict[str, float]:
        """Means of the terms over the steps that had them, of `loss` over all, and `pairs_per_second`; starts anew."""
        assert self._sums is not None
        sums, counts = (dict(zip(self._names, row, strict=True)) for row in self._sums.tolist())
        steps = sums.pop(_STEPS)
        values = {name: total / counts[name] for name, total in sums.items() if counts[name]}
        if steps:
            values["loss"] = sum(total for name, total in sums.items() if name != "grad_norm") / steps
        values["pairs_per_second"] = self._pairs / (time.perf_counter() - self._since)
        self._names, self._sums, self._pairs, self._since = [], None, 0, time.perf_counter()
        return values


def validate(
    domains: Mapping[str, DomainTokens],
    teacher: EncodeFn,
    student: EncodeFn,
    teacher_pad_id: int,
    student_pad_id: int,
    device: torch.device,
    max_rows: int,
) -> dict[str, float]:
    """For each domain's first `max_rows` held-out pairs: `cosine_zh`, `cosine_en` to the teacher, `zh2en` and `en2zh`.

    zh2en is the share of Chinese sentences whose own English is nearest among the domain's by the teacher's embedding;
    en2zh the other way round.
    """
    result = {}
    for name, tokens in domains.items():
        rows = np.arange(min(len(tokens), max_rows))
        if len(rows) < 2:
            continue
        target = _pooled(tokens, "teacher_en", rows, teacher, teacher_pad_id, device)
        english = _pooled(tokens, "student_en", rows, student, student_pad_id, device)
        chinese = _pooled(tokens, "student_zh", rows, student, student_pad_id, device)
        result[f"{name}/cosine_zh"] = (chinese * target).sum(dim=1).mean().item()
        result[f"{name}/cosine_en"] = (english * target).sum(dim=1).mean().item()
        accuracy = bitext_accuracy(chinese @ target.T)
        result |= {f"{name}/{direction}": value for direction, value in accuracy.items()}
    return result


def bitext_accuracy(similarity: torch.Tensor) -> dict[str, float]:
    """Share of rows (`zh2en`) and of columns (`en2zh`) of [n, n] whose largest entry is the diagonal's; ties count."""
    diagonal = similarity.diagonal()
    return {
        "zh2en": (similarity.max(dim=1).values <= diagonal).float().mean().item(),
        "en2zh": (similarity.max(dim=0).values <= diagonal).float().mean().item(),
    }


@torch.no_grad()
def _pooled(
    tokens: DomainTokens, view: str, rows: np.ndarray, encode: EncodeFn, pad: int, device: torch.device
) -> torch.Tensor:
    """Normalised pooled states [rows, dim] on the CPU, in the order of `rows`; encoded by length to pad little."""
    lengths = tokens.lengths(view, rows)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        ids = TokenIds(np.concatenate(tokens.gather(view, rows[batch])), lengths[batch]).pad(pad)
        batches.append(encode(torch.from_numpy(ids).to(device)).pooled.float().cpu())
    pooled = torch.cat(batches)
    pooled[torch.from_numpy(order)] = pooled.clone()
    return F.normalize(pooled, dim=1)
