"""What a step computes: the student's states on a batch, and the terms of its losses."""

from dataclasses import dataclass

import torch
from torch import nn

from data.batches import Batch
from distill.geometry import Geometry
from distill.losses import Empty, LossesConfig, Step, Terms
from distill.states import States
from distill.student.extended import ExtendedStudent


@dataclass(frozen=True)
class EmptyPrompt:
    """The empty prompt: the student's ids, int64 [1, slots], and the teacher's states of it."""

    ids: torch.Tensor
    target: States


@dataclass(frozen=True)
class Extras:
    """What some losses need besides a batch; on the training device."""

    empty: EmptyPrompt | None = None
    geometry: Geometry | None = None


class Task(nn.Module):
    """The module that is trained; one forward per step, so that any wrapper sees every use of a weight."""

    def __init__(
        self, student: ExtendedStudent, losses: LossesConfig, english_every: int, extras: Extras | None = None
    ) -> None:
        """Train `student`, which reads the English of every `english_every`-th pair."""
        super().__init__()
        self.student = student
        self._losses = losses
        self._english = slice(None, None, english_every)
        self._extras = extras or Extras()

    def forward(self, batch: Batch, target: States, done: float = 0.0) -> Terms:
        """Named loss terms, scalars.

        `target` holds the teacher's states of `batch.teacher_en`; `done` is the share of the run that lies behind.
        """
        empty = self._extras.empty
        step = Step(
            chinese=self.student(batch.student_zh),
            target=target,
            english=self.student(batch.student_en[self._english]),
            english_target=target.rows(self._english),
            full=batch.full,
            empty=Empty(self.student(empty.ids), empty.target) if empty else None,
            geometry=self._extras.geometry,
            done=done,
        )
        # Cosines near one and contrastive logits need more digits than a half-precision product keeps.
        with torch.autocast(target.pooled.device.type, enabled=False):
            return self._losses.terms(step)


def total(terms: Terms) -> torch.Tensor:
    """The loss of a step: the sum of its terms."""
    return torch.stack(list(terms.values())).sum()
