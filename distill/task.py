"""What a step computes: the student's states on a batch, and the terms of its losses."""

import torch
from torch import nn

from data.batches import Batch
from distill.losses import LossesConfig, Step, Terms
from distill.states import States
from distill.student.extended import ExtendedStudent


class Task(nn.Module):
    """The module that is trained; one forward per step, so that any wrapper sees every use of a weight."""

    def __init__(self, student: ExtendedStudent, losses: LossesConfig, english_every: int) -> None:
        """Train `student`, which reads the English of every `english_every`-th pair."""
        super().__init__()
        self.student = student
        self._losses = losses
        self._english = slice(None, None, english_every)

    def forward(self, batch: Batch, target: States) -> Terms:
        """Named loss terms, scalars; `target` holds the teacher's states of `batch.teacher_en`."""
        step = Step(
            chinese=self.student(batch.student_zh),
            target=target,
            english=self.student(batch.student_en[self._english]),
            english_target=target.rows(self._english),
            full=batch.full,
        )
        # Cosines near one and contrastive logits need more digits than a half-precision product keeps.
        with torch.autocast(target.pooled.device.type, enabled=False):
            return self._losses.terms(step)


def total(terms: Terms) -> torch.Tensor:
    """The loss of a step: the sum of its terms."""
    return torch.stack(list(terms.values())).sum()
