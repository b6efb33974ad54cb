"""The loop: set the rate, step, count, log, evaluate, save.

SIGTERM as a wish: a scheduler gives time to save.
"""

import math
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from accelerate import Accelerator
from tqdm import tqdm

from distill.distributed import average_gradients, let_go, shard, whole
from distill.losses import Terms
from distill.train import checkpoint
from distill.train.batch import Prefetch, Reading, Readings
from distill.train.checkpoint import Progress
from distill.train.config import TrainConfig
from distill.train.metrics import MetricsFile, Running
from distill.train.optim import WINDOW, Average, is_spike, make_optimizer, set_rate
from distill.train.setup import Parts
from distill.train.task import backward_in_parts, targets_in_parts, total
from distill.train.validation import validate


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """While open, SIGTERM adds to the list instead of ending the process."""
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    former = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, former)


_VALIDATION_ROWS = 500  # a domain


class DivergedError(Exception):
    """The gradients are not finite; no weight has moved since the last sound step."""


class Trainer:
    """Trains `parts.task` in `folder`, from its newest checkpoint on, on every process of `accelerator`."""

    def __init__(self, parts: Parts, config: TrainConfig, accelerator: Accelerator, folder: Path) -> None:
        """Build the optimizer, wrap the task, and load the newest checkpoint where there is one."""
        self.parts, self._config, self._accelerator = parts, config, accelerator
        self._checkpoints = folder / "checkpoints"
        self._weights = parts.task.trainable()
        self._progress = Progress(step=0, pairs=0)
        # The step of a checkpoint is loaded before wrapping: DDP then sends rank 0's weights to all.
        saved = checkpoint.steps(self._checkpoints)
        if saved:
            self._progress = checkpoint.load_weights(self._checkpoints, saved[-1], self._weights)
        self._norms = deque(self._progress.norms, maxlen=WINDOW)
        if config.shard and accelerator.num_processes > 1:
            shard(parts.task.student, parts.task.student.layers(), parts.task.decoder)
            self._weights, self._model = parts.task.trainable(), parts.task
        else:
            self._model = accelerator.prepare_model(parts.task)
        self._average = Average(self._weights, config.ema) if config.ema else None
        if saved and self._average:
            checkpoint.load_average(self._checkpoints, saved[-1], self._average.mean)
        self._optimizer = make_optimizer(self._weights, config)
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
        drawn = Prefetch(self.parts.readings, first, config.steps)
        with stop_signal() as asked, drawn as readings, self._bar() as bar:
            for step in range(first, config.steps):
                terms = self.step(step, readings)
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

    def step(self, step: int, readings: Prefetch | Readings) -> Terms:
        """One optimizer step; named terms, still on the device."""
        set_rate(self._optimizer, step, self._config)
        reading = readings[step].to(self._accelerator.device)
        self._optimizer.zero_grad(set_to_none=True)
        terms = self._backward(reading, step / self._config.steps)
        norm = whole(torch.nn.utils.clip_grad_norm_(self._weights.values(), self._config.clip_norm))
        # The gradients are averaged by now: every rank sees the same norm, and all stop before the optimizer moves.
        if not math.isfinite(norm.item()):
            raise DivergedError(
                f"step {step + 1}: the gradients are not finite; lower train.lr, or train.precision: fp32"
            )
        self._move(step, norm.item())
        return {**{name: term.detach() for name, term in terms.items()}, "grad_norm": norm}

    def _backward(self, reading: Reading, done: float) -> Terms:
        """Leave the step's gradients, averaged over the ranks, in the weights."""
        parts, teacher, autocast = self._config.accumulate, self.parts.teacher, self._accelerator.autocast
        if parts == 1:
            with autocast():
                terms: Terms = self._model(reading, teacher.targets(reading), done)
            self._accelerator.backward(total(terms))
            return terms
        with autocast():
            targets = targets_in_parts(teacher, reading.parts(parts))
        terms = backward_in_parts(self.parts.task, reading, targets, done, parts, autocast)
        average_gradients(self._weights.values())
        return terms

    def _move(self, step: int, norm: float) -> None:
        """Move the weights, unless the step's gradient is a spike; every rank decides alike."""
        skipped = self._progress.skipped
        if self._config.spike and is_spike(norm, self._norms, self._config.spike):
            skipped += 1
        else:
            self._optimizer.step()
        if self._config.spike:
            self._norms.append(norm)
        if self._average:
            self._average.update(step)
        pairs = self._progress.pairs + self._config.batch_size
        self._progress = replace(self._progress, step=step + 1, pairs=pairs, skipped=skipped)

    def _log(self, values: dict[str, float], bar: "tqdm[NoReturn]") -> None:
        """Average over the ranks what each saw of its own rows; the main process writes."""
        names = sorted(values)
        mean = self._accelerator.reduce(
            torch.tensor([values[n] for n in names], device=self._accelerator.device), "mean"
        )
        values = dict(zip(names, mean.tolist(), strict=True))
        values["lr"] = self._optimizer.param_groups[0]["lr"]
        if self._config.spike:
            values["skipped"] = self._progress.skipped
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self._record(values)

    def _evaluate(self, bar: "tqdm[NoReturn]") -> None:
        """The main process encodes the held-out slice; the others wait, or join in where each has a share."""
        if self._accelerator.is_main_process or self._config.shard:
            student = self.parts.task.student.eval()
            mean = self._average.applied() if self._average else nullcontext()
            with mean, torch.no_grad(), self._accelerator.autocast():
                result = validate(
                    self.parts.valid,
                    self.parts.teacher,
                    student,
                    self.parts.pad,
                    self._accelerator.device,
                    _VALIDATION_ROWS,
                    self.parts.student_pad,
                )
                let_go(student)
            student.train()
            self._record({f"valid/{name}": value for name, value in result.items()})
            for name in ("caption", *self.parts.valid):
                if f"{name}/zh2en" in result and self._accelerator.is_main_process:
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
        progress = replace(self._progress, norms=tuple(self._norms))
        weights, moments = checkpoint.gathered(self._weights), checkpoint.moments(self._weights, self._optimizer)
        mean = checkpoint.gathered(self._average.mean) if self._average else None
        if self._accelerator.is_main_process:
            checkpoint.save(self._checkpoints, weights, moments, progress, self._config.keep, mean)
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
