"""Optimizer, learning rate, EMA, and the steps that are skipped: gradients that are not finite, or spikes."""

import math
import re
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from distill.train.config import TrainConfig


class EMA:
    """Exponential moving average of `weights` (`train.ema`), with a shorter memory over the first steps."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        """Start at the weights; `decay` is the share kept in a step."""
        self._weights, self._decay = dict(weights), decay
        self.ema_weights = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self, step: int) -> None:
        """Average in the weights after `step`, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.ema_weights.values()), [w.detach() for w in self._weights.values()], share)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """While open, the weights are their average."""
        raw_weights = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._set(self.ema_weights)
        try:
            yield
        finally:
            self._set(raw_weights)

    @torch.no_grad()
    def _set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])


def lr_at(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the peak rate at `step` of `steps`: a cosine down to `final`, under a linear warm-up."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * step / steps)))


_EMBEDDING = re.compile(r"\.(token_embedding|word_embeddings)\.")  # CLIP's, BERT's


def make_optimizer(weights: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW with a rate of its own for the embedding, whose rows occur in few steps."""
    groups = [
        {"params": [w for n, w in weights.items() if bool(_EMBEDDING.search(n)) is rows], "lr": peak, "peak": peak}
        for rows, peak in ((False, config.lr), (True, config.embedding_lr))
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> None:
    """Give every group its rate of `step`."""
    share = lr_at(step, config.steps, config.warmup, config.final_lr)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


SPIKE_WINDOW = 128
MAX_BAD_STEPS = 5
_MIN_NORMS = 16  # norms before the first spike can be found
_MIN_DEVIATION = 0.05  # of the logarithm: in a very even run 10 % more is not a spike


def is_spike(norm: float, previous: Iterable[float], max_deviations: float) -> bool:
    """Whether `norm` lies more than `max_deviations` robust deviations above `previous` norms, on a logarithmic scale.

    The deviation is 1.4826 times the median distance from the median, which one spike among them does not move.
    """
    logs = [math.log(max(value, 1e-30)) for value in previous]
    if len(logs) < _MIN_NORMS:
        return False
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(log - middle) for log in logs)
    return math.log(max(norm, 1e-30)) - middle > max_deviations * max(deviation, _MIN_DEVIATION)


class SkippedSteps:
    """Decides which steps the optimizer skips and counts them, on the device: no step waits for it.

    With `max_deviations` (`train.spike`) spikes are skipped too, and every step waits for its norm.
    """

    def __init__(
        self, skipped: int, norms: Iterable[float], max_deviations: float | None, device: torch.device
    ) -> None:
        """Continue from a checkpoint: `skipped` steps so far, and the last finite `norms`."""
        self.norms = deque(norms, maxlen=SPIKE_WINDOW)
        self._max_deviations = max_deviations
        self._skipped, self._bad, self._worst = (
            torch.tensor(count, device=device, dtype=torch.float32) for count in (skipped, 0, 0)
        )

    def add(self, norm: torch.Tensor) -> torch.Tensor:
        """Whether to skip a step whose gradient has this `norm`: a float on the device, 1 or 0."""
        bad = (~norm.isfinite()).float()
        skip = bad
        if self._max_deviations:
            value = norm.item()
            if math.isfinite(value):
                skip = torch.full_like(bad, is_spike(value, self.norms, self._max_deviations))
                self.norms.append(value)
        self._skipped += skip
        self._bad = (self._bad + 1) * bad
        self._worst = torch.maximum(self._worst, self._bad)
        return skip

    def count(self) -> int:
        """Steps skipped in the whole run."""
        return int(self._skipped.item())

    def has_diverged(self) -> bool:
        """Whether MAX_BAD_STEPS gradients in a row were not finite."""
        return bool(self._worst.item() >= MAX_BAD_STEPS)
