"""Which slots a loss that goes slot by slot looks at."""

from typing import Literal

import torch

from distill.gather import mean_over_ranks
from distill.states import States

Slots = Literal["all", "text", "padding"]


def counted(student: States, teacher: States, full: bool, slots: Slots) -> torch.Tensor:
    """The slots that count, bool [batch, slots], as many as both sides have.

    On tight steps those that are text on both sides; on full steps all, or only those that are text (or padding) on
    both sides.
    """
    width = min(student.tokens.shape[1], teacher.tokens.shape[1])
    ours, theirs = student.is_text[:, :width], teacher.is_text[:, :width]
    if not full or slots == "text":
        return ours & theirs
    return torch.ones_like(ours) if slots == "all" else ~(ours | theirs)


def mean_of_counted(by_slot: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of `by_slot` [batch, slots] under `weight` [batch, slots] over the global batch.

    Divided by the mean rank's weight: the ranks' average is then the mean over all slots of the global batch.
    """
    tiny = torch.finfo(torch.float32).tiny  # a batch without one counted slot gives 0
    return (by_slot * weight).sum() / mean_over_ranks(weight.sum().float()).clamp(min=tiny)
