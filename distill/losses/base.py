"""What every loss is given: the states of one step, and how far the run has come.

Which slots a loss that goes slot by slot looks at.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch

from distill.distributed import mean_over_ranks
from distill.geometry import Geometry
from distill.text_tower import States

Terms = dict[str, torch.Tensor]
"""Named scalars, already weighted; the loss of a step is their sum."""


@dataclass(frozen=True)
class Empty:
    """The empty prompt, all slots, batch of one: the student's states and the teacher's."""

    student: States
    teacher: States


@dataclass(frozen=True)
class Step:
    """The states of one step.

    `chinese` and `target` hold the same pairs row by row; `english` and `english_target` those of them whose English
    the student read as well.
    """

    chinese: States
    target: States
    english: States
    english_target: States
    full: bool
    """All slots, padding included, count; otherwise only the text."""
    aligned: bool = True
    """The student's English tokens are the teacher's; otherwise only full steps compare slot with slot."""
    empty: Empty | None = None
    geometry: Geometry | None = None
    spoken: Terms = field(default_factory=dict)
    """The decoder's cross-entropy by direction, such as `zh_from_en`."""
    done: float = 0.0
    """Share of the run that lies behind."""


@dataclass(frozen=True)
class Schedule:
    """When a loss counts, in shares of the run: nothing before `start`, a linear rise over `ramp`, nothing from `stop`.

    A loss that does not count is still computed, so that every step touches the same weights.
    """

    start: float = 0.0
    ramp: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a schedule under which the loss never counts."""
        if not 0 <= self.start < self.stop <= 1 or self.ramp < 0:
            raise ValueError(f"losses: a schedule needs 0 <= start < stop <= 1 and ramp >= 0, not {self}")

    def at(self, done: float) -> float:
        """Factor of the weight when the share `done` of the run lies behind."""
        if not self.start <= done < self.stop:
            return 0.0
        return min(1.0, (done - self.start) / self.ramp) if self.ramp else 1.0


def sides(step: Step, chinese: float, english: float) -> dict[str, tuple[float, States, States]]:
    """By language: its weight, the student's states, the teacher's."""
    return {"zh": (chinese, step.chinese, step.target), "en": (english, step.english, step.english_target)}


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
