"""Input of the losses, their schedules, and masks over positions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from distill.distributed import mean_over_ranks
from distill.geometry import Geometry
from distill.text_tower import EncoderOutput

LossTerms = dict[str, torch.Tensor]
"""Named scalar tensors, already weighted; the loss of a step is their sum."""


@dataclass(frozen=True)
class EmptyPromptStates:
    """Output for the empty prompt, padded to the maximum length, batch of one."""

    student: EncoderOutput
    teacher: EncoderOutput


@dataclass(frozen=True)
class FirstStates:
    """States [batch, length, width] of SDXL's first encoder, of student and teacher on the texts of a `LossInput`."""

    chinese: torch.Tensor
    target: torch.Tensor
    english: torch.Tensor
    english_target: torch.Tensor

    def of(self, language: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's and the teacher's states for "zh" or "en"."""
        return (self.chinese, self.target) if language == "zh" else (self.english, self.english_target)


@dataclass(frozen=True)
class LossInput:
    """Encoder outputs of one step.

    `chinese` (student) and `target` (teacher) hold the same pairs row by row; `english` and `english_target` every n-th
    of them.
    """

    chinese: EncoderOutput
    target: EncoderOutput
    english: EncoderOutput
    english_target: EncoderOutput
    padded_to_max: bool
    """A max-length step: padding counts too; otherwise the batch is padded to its longest text."""
    aligned: bool = True
    """English token ids are the teacher's; otherwise positions compare on max-length steps alone."""
    empty: EmptyPromptStates | None = None
    """On max-length steps."""
    geometry: Geometry | None = None
    first: FirstStates | None = None
    """On max-length steps, where a UNet reads these states in front of the student's."""
    anchors: torch.Tensor | None = None
    """The teacher's unit vectors [n, dim] of the English of other pairs, the same in every step."""
    translation_losses: LossTerms = field(default_factory=dict)
    """The decoder's cross-entropy by direction, such as `zh_from_en`."""
    progress: float = 0.0
    """Share of the run's steps that are done."""
    draw: int = 0
    """A random number of the step, the same on every rank."""


@dataclass(frozen=True)
class LossSchedule:
    """Weight of a loss over the run: 0 before `start`, a linear ramp over `ramp`, 0 from `stop`, in shares of the run.

    A loss with weight 0 is still computed, so that every step touches the same weights.
    """

    start: float = 0.0
    ramp: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1 or self.ramp < 0:
            raise ValueError(f"losses: a schedule needs 0 <= start < stop <= 1 and ramp >= 0, not {self}")

    def at(self, progress: float) -> float:
        """Factor of the weight at `progress`, a share of the run."""
        if not self.start <= progress < self.stop:
            return 0.0
        return min(1.0, (progress - self.start) / self.ramp) if self.ramp else 1.0


class Loss(Protocol):
    """A frozen dataclass that computes named, weighted terms."""

    @property
    def schedule(self) -> LossSchedule:
        """Its weight over the run."""

    def terms(self, step: LossInput) -> LossTerms:
        """Terms of a step, before the schedule."""


def scheduled_terms(losses: Iterable[Loss], step: LossInput) -> LossTerms:
    """Every named term of the step, under its schedule."""
    return {name: term * loss.schedule.at(step.progress) for loss in losses for name, term in loss.terms(step).items()}


def by_language(
    step: LossInput, chinese: float, english: float
) -> dict[str, tuple[float, EncoderOutput, EncoderOutput]]:
    """Weight, student output and teacher output of each language with a weight."""
    every = {"zh": (chinese, step.chinese, step.target), "en": (english, step.english, step.english_target)}
    return {language: values for language, values in every.items() if values[0]}


Positions = Literal["all", "text", "padding"]


def position_mask(
    student: EncoderOutput, teacher: EncoderOutput, padded_to_max: bool, positions: Positions
) -> torch.Tensor:
    """Positions that count, bool [batch, length], over the length that both sides have.

    Text on both sides; on max-length steps with "all" every position, with "padding" those that are padding on both.
    """
    length = min(student.hidden_states.shape[1], teacher.hidden_states.shape[1])
    student_text, teacher_text = student.text_mask[:, :length], teacher.text_mask[:, :length]
    if not padded_to_max or positions == "text":
        return student_text & teacher_text
    return torch.ones_like(student_text) if positions == "all" else ~(student_text | teacher_text)


def cropped_states(student: EncoderOutput, teacher: EncoderOutput) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of student and teacher, over the length that both sides have."""
    length = min(student.hidden_states.shape[1], teacher.hidden_states.shape[1])
    return student.hidden_states[:, :length], teacher.hidden_states[:, :length]


def masked_mean(by_position: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of `by_position` [batch, length] under `weight` [batch, length] over the global batch.

    Divided by the ranks' mean weight: the ranks' average is then the mean over all positions of the global batch.
    """
    tiny = torch.finfo(torch.float32).tiny  # a batch in which no position counts gives 0
    return (by_position * weight).sum() / mean_over_ranks(weight.sum().float()).clamp(min=tiny)
