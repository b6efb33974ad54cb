"""The training loop: set the learning rate, step, count, log, evaluate, save."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from accelerate import Accelerator
from tqdm import tqdm

from distill.distributed import (
    AnyRank,
    averaged_gradients,
    broadcast_weights,
    full_tensor,
    reshard,
    resolve_precision,
    shard,
)
from distill.losses import LossTerms
from distill.train import checkpoint
from distill.train.batch import BatchLoader, Prefetcher
from distill.train.checkpoint import Progress
from distill.train.config import TrainConfig
from distill.train.metrics import MetricsFile, TermAverages
from distill.train.optim import EMA, MAX_BAD_STEPS, SkippedSteps, make_optimizer, set_lr
from distill.train.setup import TrainSetup
from distill.train.task import backward


@dataclass
class Signals:
    """Signals received since the last save: `save` (SIGUSR1), `stop` (SIGTERM, SIGINT: save, then end)."""

    save: bool = False
    stop: bool = False


@contextmanager
def catch_signals() -> Iterator[Signals]:
    """While open, signals set flags instead of ending the process; a second SIGINT raises KeyboardInterrupt."""
    received = Signals()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGUSR1", None):
            received.save = True
            return
        if number == signal.SIGINT and received.stop:
            signal.default_int_handler(number, frame)
        received.stop = True

    names = [name for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]  # Windows has no SIGUSR1
    previous = {name: signal.signal(getattr(signal, name), on_signal) for name in names}
    try:
        yield received
    finally:
        for name, handler in previous.items():
            signal.signal(getattr(signal, name), handler)


class DivergedError(Exception):
    """Gradients stayed not finite; no weight has moved since the last sound step."""


class Trainer:
    """Trains `setup.task` in `folder`, from its newest checkpoint on, on every process of `accelerator`."""

    def __init__(self, setup: TrainSetup, config: TrainConfig, accelerator: Accelerator, folder: Path) -> None:
        """Build the optimizer and load the newest checkpoint where there is one; collective."""
        self.setup, self._config, self._accelerator = setup, config, accelerator
        self._checkpoints = folder / "checkpoints"
        device, precision = accelerator.device, resolve_precision(config.precision, accelerator.device)
        self.autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
        setup.task.to(device).train()  # recomputation needs train mode, and from_pretrained leaves evaluation mode
        self._weights = setup.task.trainable()
        self._progress = Progress(step=0, pairs=0)
        if saved := checkpoint.saved_steps(self._checkpoints):
            self._progress = checkpoint.load_weights(self._checkpoints, saved[-1], self._weights)
        broadcast_weights(self._weights.values())
        if config.shard and accelerator.num_processes > 1:
            shard(setup.task.student, setup.task.student.layers(), setup.task.decoder, device, precision)
            self._weights = setup.task.trainable()
        # A backward pass goes from the last layer to the embedding; the decoder's gradients are there before it ends.
        late = {name: weight for name, weight in self._weights.items() if name.startswith(checkpoint.DECODER)}
        weights = [weight for name, weight in reversed(self._weights.items()) if name not in late]
        self._averaged_gradients = partial(averaged_gradients, [*weights, *late.values()], bf16=config.bf16_gradients)
        self._ema = EMA(self._weights, config.ema) if config.ema else None
        self._optimizer = make_optimizer(self._weights, config)
        if saved and self._ema:
            checkpoint.load_ema(self._checkpoints, saved[-1], self._ema.ema_weights)
        if saved:
            checkpoint.load_optimizer(self._checkpoints, saved[-1], self._weights, self._optimizer)
        self._skipped = SkippedSteps(self._progress.skipped, self._progress.norms, config.spike, device)
        self._metrics = (
            MetricsFile(folder / "metrics.jsonl", self._progress.step) if accelerator.is_main_process else None
        )
        self._any_rank = AnyRank()

    def train(self) -> Progress:
        """Run to the last step, or to SIGTERM or SIGINT, which save first.

        Gradients that stay not finite raise `DivergedError` on every rank.
        """
        config, first, averages = self._config, self._progress.step, TermAverages()
        prefetcher = Prefetcher(self.setup.loader, first, config.steps, pin=self._accelerator.device.type == "cuda")
        with catch_signals() as signals, prefetcher as loader, self._progress_bar() as bar:
            for step in range(first, config.steps):
                terms = self.step(step, loader)
                averages.add(terms, config.batch_size, terms["grad_norm"].isfinite())
                bar.update(config.batch_size)
                last = step + 1 == config.steps
                saving, stopping = self._any_rank(signals.save, signals.stop)
                signals.save = False
                if last or stopping or (step + 1) % config.log_every == 0:
                    self._check_divergence()
                    self._log(averages.pop(), bar)
                if last or (step + 1) % config.eval_every == 0:
                    self._evaluate(bar)
                if last or stopping or saving or (step + 1) % config.save_every == 0:
                    self._check_divergence()
                    self._save()
                if stopping:
                    break
        if self._metrics:
            self._metrics.close()
        return self._progress

    def step(self, step: int, loader: Prefetcher | BatchLoader) -> LossTerms:
        """One optimizer step; named terms and the gradient's norm, still on the device."""
        config, task = self._config, self.setup.task
        set_lr(self._optimizer, step, config)
        batch = loader[step].to(self._accelerator.device)
        self._optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            targets = self.setup.teacher.targets(batch, config.tokens_at_once)
        terms = backward(
            task, batch, targets, step / config.steps, config.tokens_at_once, self.autocast, self._averaged_gradients
        )
        norm = full_tensor(torch.nn.utils.clip_grad_norm_(self._weights.values(), config.clip_norm))
        # The gradients are averaged: every rank has the same norm, and all skip the same steps.
        self._optimizer.found_inf = self._skipped.add(norm)  # type: ignore[attr-defined]  # fused AdamW reads it
        self._optimizer.step()
        if self._ema:
            self._ema.update(step)
        self._progress = replace(self._progress, step=step + 1, pairs=self._progress.pairs + config.batch_size)
        return {**{name: term.detach() for name, term in terms.items()}, "grad_norm": norm}

    def _check_divergence(self) -> None:
        if self._skipped.has_diverged():
            raise DivergedError(
                f"step {self._progress.step}: {MAX_BAD_STEPS} gradients in a row were not finite; lower train.lr, or "
                "train.precision: fp32"
            )

    def _log(self, values: dict[str, float], bar: "tqdm[NoReturn]") -> None:
        """Average over the ranks; the main process writes."""
        names = sorted(values)
        mean = self._accelerator.reduce(
            torch.tensor([values[n] for n in names], device=self._accelerator.device), "mean"
        )
        values = dict(zip(names, mean.tolist(), strict=True))
        values["lr"] = self._optimizer.param_groups[0]["lr"]
        if self._config.spike or self._skipped.count():
            values["skipped"] = self._skipped.count()
        bar.set_postfix(loss=f"{values.get('loss', float('nan')):.4f}", refresh=False)
        self._record(values)

    def _evaluate(self, bar: "tqdm[NoReturn]") -> None:
        """The main process encodes the held-out rows; the others wait, or take part where weights are sharded."""
        main = self._accelerator.is_main_process
        if main or self._config.shard:
            student = self.setup.task.student.eval()
            with self._ema.swapped_in() if self._ema else nullcontext(), torch.no_grad(), self.autocast():
                result = self.setup.validate()
                reshard(student)
            student.train()
            self._record({f"valid/{name}": value for name, value in result.items()})
            domain = next((name for name in ("caption", *self.setup.valid) if f"{name}/zh2en" in result), None)
            if domain and main:
                zh2en, en2zh, cosine = (result[f"{domain}/{name}"] for name in ("zh2en", "en2zh", "cosine_zh"))
                scores = f"{domain} zh2en {zh2en:.3f}, en2zh {en2zh:.3f}, cosine {cosine:.4f}"
                bar.write(f"step {self._progress.step}: {scores}")
        self._accelerator.wait_for_everyone()

    def _record(self, values: dict[str, float]) -> None:
        if self._metrics:
            self._metrics.write(self._progress.step, {**values, "pairs": self._progress.pairs})
        self._accelerator.log(values, step=self._progress.step)

    def _save(self) -> None:
        progress = replace(self._progress, skipped=self._skipped.count(), norms=tuple(self._skipped.norms))
        weights = checkpoint.full_state(self._weights)
        moments = checkpoint.optimizer_state(self._weights, self._optimizer)
        ema = checkpoint.full_state(self._ema.ema_weights) if self._ema else None
        if self._accelerator.is_main_process:
            checkpoint.save(self._checkpoints, weights, moments, progress, self._config.keep, ema)
        self._accelerator.wait_for_everyone()

    def _progress_bar(self) -> "tqdm[NoReturn]":
        pairs_done, total_pairs = self._progress.pairs, self._config.steps * self._config.batch_size
        hidden = not self._accelerator.is_main_process
        return tqdm(
            desc="distill", total=total_pairs, initial=pairs_done, unit=" pairs", unit_scale=True, disable=hidden
        )
