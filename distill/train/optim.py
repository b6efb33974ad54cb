"""The running mean of the weights over the steps, which is what a run with `train.ema` evaluates and exports.

The learning rate: a pure function of the step.

AdamW over the weights that train.

Steps whose gradient is out of all proportion to those before it.
"""

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from distill.train.config import TrainConfig


class EMA:
    """An exponential mean of `weights`; the first steps, which are far from the last, are forgotten sooner."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        """Start as the weights are; `decay` is the share that stays in a step."""
        self._weights, self._decay = dict(weights), decay
        self.ema_weights = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self, step: int) -> None:
        """Count the weights after `step`, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.ema_weights.values()), [w.detach() for w in self._weights.values()], share)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """While open, the weights are their mean."""
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
    """Share of the peak rate at `step` of `steps`: a linear rise over `warmup` steps, then a cosine down to `final`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    done = step / steps
    return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))


_EMBEDDING = re.compile(r"\.(token_embedding|word_embeddings)\.")  # CLIP's, BERT's


def make_optimizer(weights: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with a rate of its own for the embedding: its rows see few tokens each."""
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
_MIN_NORMS = 16  # norms that must be known before one can stand out
_MIN_DEVIATION = 0.05  # deviation of the logarithm: a very even run must not call 10 % more a spike


def is_spike(norm: float, previous: Iterable[float], max_deviations: float) -> bool:
    """Whether `norm` lies more than `most` robust deviations above the norms `before`, all on a logarithmic scale.

    The deviation is 1.4826 times the median distance from the median, which one spike among them does not move.
    """
    logs = [math.log(max(each, 1e-30)) for each in previous]
    if len(logs) < _MIN_NORMS:
        return False
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(each - middle) for each in logs)
    return math.log(max(norm, 1e-30)) - middle > max_deviations * max(deviation, _MIN_DEVIATION)
