"""The learning rate: a pure function of the step."""

import math


def rate(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the peak rate at `step` of `steps`: a linear rise over `warmup` steps, then a cosine down to `final`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    done = step / steps
    return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
