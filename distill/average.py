"""The running mean of the weights over the steps, which is what a run with `train.ema` evaluates and exports."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential mean of `weights`; the first steps, which are far from the last, are forgotten sooner."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        """Start as the weights are; `decay` is the share that stays in a step."""
        self._weights, self._decay = dict(weights), decay
        self.mean = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self, step: int) -> None:
        """Count the weights after `step`, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), [w.detach() for w in self._weights.values()], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the weights are their mean."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._set(self.mean)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
