"""InfoNCE over the global batch."""

from dataclasses import dataclass, field

import torch.nn.functional as F

from distill.gather import gather_rows, own_rows
from distill.losses.step import Schedule, Step, Terms


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE between Chinese and the teacher's English over the global batch, both ways.

    Pairs whose English is the same to the teacher are not each other's negatives.
    """

    weight: float = 0.1
    temperature: float = 0.05
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        """Refuse a temperature that divides by nothing."""
        if self.temperature <= 0:
            raise ValueError(f"losses.contrastive.temperature: {self.temperature} is not above 0")

    def terms(self, step: Step) -> Terms:
        """`contrastive`: the mean over this rank's rows against the columns of all ranks."""
        ours = F.normalize(step.chinese.pooled, dim=-1)
        theirs = F.normalize(step.target.pooled, dim=-1)
        all_ours, all_theirs = gather_rows(ours), gather_rows(theirs)
        own = own_rows(ours)
        same = (theirs @ all_theirs.T > 0.999).scatter(1, own[:, None], False)
        losses = [
            F.cross_entropy((query @ keys.T / self.temperature).masked_fill(same, float("-inf")), own)
            for query, keys in ((ours, all_theirs), (theirs, all_ours))
        ]
        return {"contrastive": self.weight * (losses[0] + losses[1]) / 2}
