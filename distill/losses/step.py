"""What every loss is given: the states of one step, and how far the run has come."""

from dataclasses import dataclass, field

import torch

from distill.geometry import Geometry
from distill.states import States

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
