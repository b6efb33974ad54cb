"""The states slot by slot against the teacher's."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.losses.slots import Slots, counted, mean_of_counted
from distill.losses.step import Schedule, Step, Terms, sides
from distill.states import States


@dataclass(frozen=True)
class Hidden:
    """The states of the slots one by one: what a UNet's cross-attention sees.

    English lines up with the teacher's English. Chinese position by position is SkyCLIP's way: it asks a causal
    model for the t-th English token's state after t Chinese tokens, and is off by default.
    """

    english: float = 1.0
    chinese: float = 0.0
    cosine: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    slots: Slots = "all"
    """Which slots count on full steps; tight steps have only text."""
    by_norm: bool = False
    """Weigh each slot by the norm of the teacher's state."""
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def reads_chinese_padding(self) -> bool:
        """Whether full steps need the slots behind the Chinese text."""
        return self.chinese > 0 and self.slots != "text"

    def terms(self, step: Step) -> Terms:
        """`hidden_en` and `hidden_zh`; on tight steps over the text that both sides have, else over every slot.

        Nothing on tight steps where the student's English tokens are not the teacher's.
        """
        if not step.full and not step.aligned:
            return {}
        return {
            f"hidden_{language}": weight * self._distance(student, teacher, step.full)
            for language, (weight, student, teacher) in sides(step, self.chinese, self.english).items()
            if weight
        }

    def _distance(self, student: States, teacher: States, full: bool) -> torch.Tensor:
        chosen = counted(student, teacher, full, self.slots)
        slots = chosen.shape[1]
        ours, theirs = student.tokens[:, :slots], teacher.tokens[:, :slots]
        by_slot = self.cosine * (1 - F.cosine_similarity(ours, theirs, dim=-1))
        if self.l1:
            by_slot = by_slot + self.l1 * (ours - theirs).abs().mean(dim=-1)
        if self.l2:
            by_slot = by_slot + self.l2 * (ours - theirs).square().mean(dim=-1)
        return mean_of_counted(by_slot, chosen * theirs.norm(dim=-1) if self.by_norm else chosen)
