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

from distill.distributed import average_gradients, full_tensor, reshard, shard
from distill.losses import LossTerms
from distill.train import checkpoint
from distill.train.batch import BatchLoader, Prefetcher, TrainBatch
from distill.train.checkpoint import Progress
from distill.train.config import TrainConfig
from distill.train.metrics import MetricsFile, TermAverages
from distill.train.optim import EMA, SPIKE_WINDOW, is_spike, make_optimizer, set_lr
from distill.train.setup import TrainSetup
from distill.train.task import cached_backward, chunked_targets, total
from distill.train.validation import validate


@contextmanager
def catch_sigterm() -> Iterator[list[int]]:
    """While open, SIGTERM adds to the list instead of ending the process."""
    received: list[int] = []

    def on_sigterm(number: int, _: FrameType | None) -> None:
        received.append(number)

    previous_handler = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


_VALIDATION_ROWS = 500  # a domain


class DivergedError(Exception):
    """The gradients are not finite; no weight has moved since the last sound step."""


class Trainer:
    """Trains `parts.task` in `folder`, from its newest checkpoint on, on every process of `accelerator`."""

    def __init__(self, setup: TrainSetup, config: TrainConfig, accelerator: Accelerator, folder: Path) -> None:
        """Build the optimizer, wrap the task, and load the newest checkpoint where there is one."""
        self.setup, self._config, self._accelerator = setup, config, accelerator
        self._checkpoints = folder / "checkpoints"
        self._weights = setup.task.trainable()
        self._progress = Progress(step=0, pairs=0)
        # The step of a checkpoint is loaded before wrapping: DDP then sends rank 0's weights to all.
        saved = checkpoint.saved_steps(self._checkpoints)
        if saved:
            self._progress = checkpoint.load_weights(self._checkpoints, saved[-1], self._weights)
        self._norms = deque(self._progress.norms, maxlen=SPIKE_WINDOW)
        if config.shard and accelerator.num_processes > 1:
            shard(setup.task.student, setup.task.student.layers(), setup.task.decoder)
            self._weights, self._model = setup.task.trainable(), setup.task
        else:
            self._model = accelerator.prepare_model(setup.task)
        self._ema = EMA(self._weights, config.ema) if config.ema else None
        if saved and self._ema:
            checkpoint.load_ema(self._checkpoints, saved[-1], self._ema.ema_weights)
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
        config, first, averages = self._config, self._progress.step, TermAverages()
        prefetcher = Prefetcher(self.setup.loader, first, config.steps)
        with catch_sigterm() as signals, prefetcher as loader, self._progress_bar() as bar:
            for step in range(first, config.steps):
                terms = self.step(step, loader)
                averages.add(terms, config.batch_size)
                bar.update(config.batch_size)
                last = step + 1 == config.steps
                logging = (step + 1) % config.log_every == 0
                stopping = (
                    self._any_rank_stopping(signals) if logging or self._accelerator.num_processes == 1 else False
                )
                if last or stopping or logging:
                    self._log(averages.pop(), bar)
                if last or (step + 1) % config.eval_every == 0:
                    self._evaluate(bar)
                if last or stopping or (step + 1) % config.save_every == 0:
                    self._save()
                if stopping:
                    break
        if self._metrics:
            self._metrics.close()
        return self._progress

    def step(self, step: int, loader: Prefetcher | BatchLoader) -> LossTerms:
        """One optimizer step; named terms, still on the device."""
        set_lr(self._optimizer, step, self._config)
        batch = loader[step].to(self._accelerator.device)
        self._optimizer.zero_grad(set_to_none=True)
        terms = self._backward(batch, step / self._config.steps)
        norm = full_tensor(torch.nn.utils.clip_grad_norm_(self._weights.values(), self._config.clip_norm))
        # The gradients are averaged by now: every rank sees the same norm, and all stop before the optimizer moves.
        if not math.isfinite(norm.item()):
            raise DivergedError(
                f"step {step + 1}: the gradients are not finite; lower train.lr, or train.precision: fp32"
            )
        self._optimizer_step(step, norm.item())
        return {**{name: term.detach() for name, term in terms.items()}, "grad_norm": norm}

    def _backward(self, batch: TrainBatch, progress: float) -> LossTerms:
        """Leave the step's gradients, averaged over the ranks, in the weights."""
        num_chunks, teacher, autocast = self._config.accumulate, self.setup.teacher, self._accelerator.autocast
        if num_chunks == 1:
            with autocast():
                terms: LossTerms = self._model(batch, teacher.targets(batch), progress)
            self._accelerator.backward(total(terms))
            return terms
        with autocast():
            targets = chunked_targets(teacher, batch.chunks(num_chunks))
        terms = cached_backward(self.setup.task, batch, targets, progress, num_chunks, autocast)
        average_gradients(self._weights.values())
        return terms

    def _optimizer_step(self, step: int, norm: float) -> None:
        """Move the weights, unless the step's gradient is a spike; every rank decides alike."""
        skipped = self._progress.skipped
        if self._config.spike and is_spike(norm, self._norms, self._config.spike):
            skipped += 1
        else:
            self._optimizer.step()
        if self._config.spike:
            self._norms.append(norm)
        if self._ema:
            self._ema.update(step)
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
            student = self.setup.task.student.eval()
            weights_context = self._ema.swapped_in() if self._ema else nullcontext()
            with weights_context, torch.no_grad(), self._accelerator.autocast():
                result = validate(
                    self.setup.valid,
                    self.setup.teacher,
                    student,
                    self.setup.teacher_vocabulary.pad_id,
                    student.vocabulary.pad_id,
                    self._accelerator.device,
                    _VALIDATION_ROWS,
                )
                reshard(student)
            student.train()
            self._record({f"valid/{name}": value for name, value in result.items()})
            for name in ("caption", *self.setup.valid):
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
        weights, moments = (
            checkpoint.full_state(self._weights),
            checkpoint.optimizer_state(self._weights, self._optimizer),
        )
        ema = checkpoint.full_state(self._ema.ema_weights) if self._ema else None
        if self._accelerator.is_main_process:
            checkpoint.save(self._checkpoints, weights, moments, progress, self._config.keep, ema)
        self._accelerator.wait_for_everyone()

    def _any_rank_stopping(self, signals: list[int]) -> bool:
        """Whether any rank has been asked to stop: the signal reaches them at different steps, they stop at one.

        Ranks talk of it when they log: asking at every step would make a GPU wait.
        """
        flag = torch.tensor([len(signals)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(flag, "sum").item())

    def _progress_bar(self) -> "tqdm[NoReturn]":
        pairs_done, total_pairs = self._progress.pairs, self._config.steps * self._config.batch_size
        hidden = not self._accelerator.is_main_process
        return tqdm(
            desc="distill", total=total_pairs, initial=pairs_done, unit=" pairs", unit_scale=True, disable=hidden
        )
