"""What the student is asked for: each loss a frozen dataclass that turns a step's states into named terms.

A term is a scalar tensor, already weighted; the loss of a step is the sum of its terms.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from distill.gather import gather_rows, mean_over_ranks
from distill.states import States

Terms = dict[str, torch.Tensor]


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


def _sides(step: Step, chinese: float, english: float) -> dict[str, tuple[float, States, States]]:
    """By language: its weight, the student's states, the teacher's."""
    return {"zh": (chinese, step.chinese, step.target), "en": (english, step.english, step.english_target)}


@dataclass(frozen=True)
class Pooled:
    """The projected end-of-text state: what retrieval, and SDXL's pooled input, see."""

    chinese: float = 1.0
    english: float = 1.0
    cosine: float = 1.0
    mse: float = 0.0
    """Weight of the squared error, in units of the teacher's own mean squared norm."""

    def terms(self, step: Step) -> Terms:
        """`pooled_zh` and `pooled_en`."""
        sides = _sides(step, self.chinese, self.english)
        return {
            f"pooled_{language}": weight * self._distance(student.pooled, teacher.pooled)
            for language, (weight, student, teacher) in sides.items()
            if weight
        }

    def _distance(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        loss = self.cosine * (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()
        if self.mse:
            loss = loss + self.mse * F.mse_loss(student, teacher) / mean_over_ranks(teacher.square().mean())
        return loss


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

    def terms(self, step: Step) -> Terms:
        """`hidden_en` and `hidden_zh`; on tight steps over the text that both sides have, else over every slot."""
        sides = _sides(step, self.chinese, self.english)
        return {
            f"hidden_{language}": weight * self._distance(student, teacher, step.full)
            for language, (weight, student, teacher) in sides.items()
            if weight
        }

    def _distance(self, student: States, teacher: States, full: bool) -> torch.Tensor:
        slots = min(student.tokens.shape[1], teacher.tokens.shape[1])
        counted = student.is_text[:, :slots] & teacher.is_text[:, :slots]
        if full:
            counted = torch.ones_like(counted)
        ours, theirs = student.tokens[:, :slots], teacher.tokens[:, :slots]
        by_slot = self.cosine * (1 - F.cosine_similarity(ours, theirs, dim=-1))
        if self.l1:
            by_slot = by_slot + self.l1 * (ours - theirs).abs().mean(dim=-1)
        if self.l2:
            by_slot = by_slot + self.l2 * (ours - theirs).square().mean(dim=-1)
        # Over the mean rank's slots: the ranks' average is then the mean over all slots of the global batch.
        return (by_slot * counted).sum() / mean_over_ranks(counted.sum().float())


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE between Chinese and the teacher's English over the global batch, both ways.

    Pairs whose English is the same to the teacher are not each other's negatives.
    """

    weight: float = 0.1
    temperature: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a temperature that divides by nothing."""
        if self.temperature <= 0:
            raise ValueError(f"losses.contrastive.temperature: {self.temperature} is not above 0")

    def terms(self, step: Step) -> Terms:
        """`contrastive`: the mean over this rank's rows against the columns of all ranks."""
        ours = F.normalize(step.chinese.pooled, dim=-1)
        theirs = F.normalize(step.target.pooled, dim=-1)
        all_ours, all_theirs = gather_rows(ours), gather_rows(theirs)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        own = torch.arange(len(ours), device=ours.device) + rank * len(ours)
        same = (theirs @ all_theirs.T > 0.999).scatter(1, own[:, None], False)
        losses = [
            F.cross_entropy((query @ keys.T / self.temperature).masked_fill(same, float("-inf")), own)
            for query, keys in ((ours, all_theirs), (theirs, all_ours))
        ]
        return {"contrastive": self.weight * (losses[0] + losses[1]) / 2}


@dataclass(frozen=True)
class LossesConfig:
    """The losses of a run; null leaves one out."""

    pooled: Pooled | None = Pooled()
    hidden: Hidden | None = Hidden()
    contrastive: Contrastive | None = Contrastive()

    def __post_init__(self) -> None:
        """Refuse a run that asks for nothing."""
        if not self.chosen:
            raise ValueError("losses: every loss is null; give at least one")

    @property
    def chosen(self) -> list[Pooled | Hidden | Contrastive]:
        """The losses that are not null."""
        return [loss for field in fields(self) if (loss := getattr(self, field.name)) is not None]

    def terms(self, step: Step) -> Terms:
        """Every named term of the step."""
        return {name: term for loss in self.chosen for name, term in loss.terms(step).items()}
