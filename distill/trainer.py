"""The loop: set the rate, step, count, log, evaluate, save."""

import math
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from data.batches import Batches
from data.tokens import DomainTokens
from distill import checkpoint
from distill.checkpoint import Progress
from distill.config import TrainConfig
from distill.metrics import MetricsFile, Running
from distill.prefetch import Prefetch
from distill.rate import rate
from distill.task import Task, total
from distill.teacher import Teacher
from distill.validation import validate

_VALIDATION_ROWS = 500  # a domain
_EMBEDDING = re.compile(r"\.(token_embedding|word_embeddings)\.")  # CLIP's, BERT's


class DivergedError(Exception):
    """The gradients are not finite; no weight has moved since the last sound step."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    task: Task
    teacher: Teacher
    batches: Batches
    valid: Mapping[str, DomainTokens]
    pad: int
    """Of the teacher's vocabulary."""
    student_pad: int


class Trainer:
    """Trains `parts.task` in `folder`, from its newest checkpoint on, on every process of `accelerator`."""

    def __init__(self, parts: Parts, config: TrainConfig, accelerator: Accelerator, folder: Path) -> None:
        """Build the optimizer, wrap the task, and load the newest checkpoint where there is one."""
        self._parts, self._config, self._accelerator = parts, config, accelerator
        self._checkpoints = folder / "checkpoints"
        self._weights = parts.task.trainable()
        self._progress = Progress(step=0, pairs=0)
        # The step of a checkpoint is loaded before wrapping: DDP then sends rank 0's weights to all.
        saved = checkpoint.steps(self._checkpoints)
        if saved:
            self._progress = checkpoint.load_weights(self._checkpoints, saved[-1], self._weights)
        self._optimizer = _optimizer(self._weights, config)
        self._model = accelerator.prepare_model(parts.task)
        if saved:
            checkpoint.load_optimizer(self._checkpoints, saved[-1], self._weights, self._optimizer)
        self._metrics = (
            MetricsFile(folder / "metrics.jsonl", self._progress.step) if accelerator.is_main_process else None
        )

    def train(self) -> Progress:
        """Run to the last step, or to a SIGTERM, which saves first.

        Gradients that are not finite raise `DivergedError` on every rank.
        """
        config, first, running = self._config, self._progress.step, Running()
        with _stop_signal() as asked, Prefetch(self._parts.batches, first, config.steps) as batches, self._bar() as bar:
            for step in range(first, config.steps):
                terms = self._step(step, batches)
                self._progress = Progress(step=step + 1, pairs=self._progress.pairs + config.batch_size)
                running.add(terms, config.batch_size)
                bar.update(config.batch_size)
                last = step + 1 == config.steps
                logging = (step + 1) % config.log_every == 0
                stopping = self._anyone(asked) if logging or self._accelerator.num_processes == 1 else False
                if last or stopping or logging:
                    self._log(running.read(), bar)
                if last or (step + 1) % config.eval_every == 0:
                    self._evaluate(bar)
                if last or stopping or (step + 1) % config.save_every == 0:
                    self._save()
                if stopping:
                    break
        if self._metrics:
            self._metrics.close()
        return self._progress

    def _step(self, step: int, batches: Prefetch) -> dict[str, torch.Tensor]:
        """One optimizer step; named terms, still on the device."""
        share = rate(step, self._config.steps, self._config.warmup, self._config.final_lr)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share
        batch = batches[step].to(self._accelerator.device)
        with self._accelerator.autocast():
            target = self._parts.teacher(batch.teacher_en)
            terms = self._model(batch, target, step / self._config.steps)
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(total(terms))
        norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), self._config.clip_norm)
        # The gradients are averaged by now: every rank sees the same norm, and all stop before the optimizer moves.
        if not math.isfinite(norm.item()):
            raise DivergedError(
                f"step {step + 1}: the gradients are not finite; lower train.lr, or train.precision: fp32"
            )
        self._optimizer.step()
        return {**{name: term.detach() for name, term in terms.items()}, "grad_norm": norm}

    def _log(self, values: dict[str, float], bar: "tqdm[NoReturn]") -> None:
        """Average over the ranks what each saw of its own rows; the main process writes."""
        names = sorted(values)
        mean = self._accelerator.reduce(
            torch.tensor([values[n] for n in names], device=self._accelerator.device), "mean"
        )
        values = dict(zip(names, mean.tolist(), strict=True))
        values["lr"] = self._optimizer.param_groups[0]["lr"]
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self._record(values)

    def _evaluate(self, bar: "tqdm[NoReturn]") -> None:
        """The main process encodes the held-out slice; the others wait."""
        if self._accelerator.is_main_process:
            student = self._parts.task.student.eval()
            with torch.no_grad(), self._accelerator.autocast():
                result = validate(
                    self._parts.valid,
                    self._parts.teacher,
                    student,
                    self._parts.pad,
                    self._accelerator.device,
                    _VALIDATION_ROWS,
                    self._parts.student_pad,
                )
            student.train()
            self._record({f"valid/{name}": value for name, value in result.items()})
            for name in ("caption", *self._parts.valid):
                if f"{name}/zh2en" in result:
                    bar.write(
                        f"step {self._progress.step}: {name} zh2en {result[f'{name}/zh2en']:.3f}, "
                        f"en2zh {result[f'{name}/en2zh']:.3f}, cosine {result[f'{name}/cosine_zh']:.4f}"
                    )
                    break
        self._accelerator.wait_for_everyone()

    def _record(self, values: dict[str, float]) -> None:
        if self._metrics:
            self._metrics.write(self._progress.step, {**values, "pairs": self._progress.pairs})
        self._accelerator.log(values, step=self._progress.step)

    def _save(self) -> None:
        if self._accelerator.is_main_process:
            checkpoint.save(self._checkpoints, self._weights, self._optimizer, self._progress, self._config.keep)
        self._accelerator.wait_for_everyone()

    def _anyone(self, asked: list[int]) -> bool:
        """Whether any rank has been asked to stop: the signal reaches them at different steps, they stop at one.

        Ranks talk of it when they log: asking at every step would make a GPU wait.
        """
        flag = torch.tensor([len(asked)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(flag, "sum").item())

    def _bar(self) -> "tqdm[NoReturn]":
        done, everything = self._progress.pairs, self._config.steps * self._config.batch_size
        hidden = not self._accelerator.is_main_process
        return tqdm(desc="distill", total=everything, initial=done, unit=" pairs", unit_scale=True, disable=hidden)


def _optimizer(weights: dict[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with a rate of its own for the embedding: its rows see few tokens each."""
    groups = [
        {"params": [w for n, w in weights.items() if bool(_EMBEDDING.search(n)) is rows], "lr": peak, "peak": peak}
        for rows, peak in ((False, config.lr), (True, config.embedding_lr))
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """SIGTERM adds to the list instead of ending the process: a scheduler gives time to save."""
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    former = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, former)
