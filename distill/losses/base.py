"""What every loss is given: the states of one step, and how far the run has come.

Which slots a loss that goes slot by slot looks at.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch

from distill.distributed import mean_over_ranks
from distill.geometry import Geometry
from distill.text_tower import EncoderOutput

LossTerms = dict[str, torch.Tensor]
"""Named scalars, already weighted; the loss of a step is their sum."""


@dataclass(frozen=True)
class EmptyPromptStates:
    """The empty prompt, all slots, batch of one: the student's states and the teacher's."""

    student: EncoderOutput
    teacher: EncoderOutput


@dataclass(frozen=True)
class LossInput:
    """The states of one step.

    `chinese` and `target` hold the same pairs row by row; `english` and `english_target` those of them whose English
    the student read as well.
    """

    chinese: EncoderOutput
    target: EncoderOutput
    english: EncoderOutput
    english_target: EncoderOutput
    padded_to_max: bool
    """All slots, padding included, count; otherwise only the text."""
    aligned: bool = True
    """The student's English tokens are the teacher's; otherwise only full steps compare slot with slot."""
    empty: EmptyPromptStates | None = None
    geometry: Geometry | None = None
    translation_losses: LossTerms = field(default_factory=dict)
    """The decoder's cross-entropy by direction, such as `zh_from_en`."""
    progress: float = 0.0
    """Share of the run that lies behind."""


@dataclass(frozen=True)
class LossSchedule:
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

    def at(self, progress: float) -> float:
        """Factor of the weight when the share `done` of the run lies behind."""
        if not self.start <= progress < self.stop:
            return 0.0
        return min(1.0, (progress - self.start) / self.ramp) if self.ramp else 1.0


def by_language(
    step: LossInput, chinese: float, english: float
) -> dict[str, tuple[float, EncoderOutput, EncoderOutput]]:
    """By language: its weight, the student's states, the teacher's."""
    return {"zh": (chinese, step.chinese, step.target), "en": (english, step.english, step.english_target)}


Positions = Literal["all", "text", "padding"]


def position_mask(
    student: EncoderOutput, teacher: EncoderOutput, padded_to_max: bool, positions: Positions
) -> torch.Tensor:
    """The slots that count, bool [batch, slots], as many as both sides have.

    On tight steps those that are text on both sides; on full steps all, or only those that are text (or padding) on
    both sides.
    """
    width = min(student.hidden_states.shape[1], teacher.hidden_states.shape[1])
    ours, theirs = student.text_mask[:, :width], teacher.text_mask[:, :width]
    if not padded_to_max or positions == "text":
        return ours & theirs
    return torch.ones_like(ours) if positions == "all" else ~(ours | theirs)


def masked_mean(by_position: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of `by_slot` [batch, slots] under `weight` [batch, slots] over the global batch.

    Divided by the mean rank's weight: the ranks' average is then the mean over all slots of the global batch.
    """
    tiny = torch.finfo(torch.float32).tiny  # a batch without one counted slot gives 0
    return (by_position * weight).sum() / mean_over_ranks(weight.sum().float()).clamp(min=tiny)
