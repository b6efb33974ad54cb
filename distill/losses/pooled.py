"""The projected end-of-text state against the teacher's."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.gather import mean_over_ranks
from distill.losses.step import Schedule, Step, Terms, sides


@dataclass(frozen=True)
class Pooled:
    """The projected end-of-text state: what retrieval, and SDXL's pooled input, see."""

    chinese: float = 1.0
    english: float = 1.0
    cosine: float = 1.0
    mse: float = 0.0
    """Weight of the squared error, in units of the teacher's own mean squared norm."""
    schedule: Schedule = field(default_factory=Schedule)

    def terms(self, step: Step) -> Terms:
        """`pooled_zh` and `pooled_en`."""
        return {
            f"pooled_{language}": weight * self._distance(student.pooled, teacher.pooled)
            for language, (weight, student, teacher) in sides(step, self.chinese, self.english).items()
            if weight
        }

    def _distance(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        loss = self.cosine * (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()
        if self.mse:
            loss = loss + self.mse * F.mse_loss(student, teacher) / mean_over_ranks(teacher.square().mean())
        return loss
