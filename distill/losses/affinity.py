"""How like each other the sentences of a batch are, to the student as to the teacher."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.gather import gather_rows, own_rows
from distill.losses.step import Schedule, Step, Terms


@dataclass(frozen=True)
class Affinity:
    """The in-batch similarity structure (Park et al. 2019, relational distillation, here on cosines).

    With z the student's Chinese and t the teacher's English, pooled and normalised, over i != j of the global batch:
    mean (z_i . z_j - t_i . t_j)^2. It says nothing of where a sentence lies, only of its distances to the others.
    """

    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)

    def terms(self, step: Step) -> Terms:
        """`affinity`: the mean over this rank's rows against the columns of all ranks; 0 for a batch of one."""
        ours = F.normalize(step.chinese.pooled, dim=-1)
        theirs = F.normalize(step.target.pooled, dim=-1)
        apart = ours @ gather_rows(ours).T - theirs @ gather_rows(theirs).T
        others = torch.ones_like(apart).scatter(1, own_rows(ours)[:, None], 0.0)
        return {"affinity": self.weight * (apart.square() * others).sum() / others.sum().clamp(min=1)}
