"""Losses on hidden states: position by position, by optimal transport across languages, and of the empty prompt."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.distributed import mean_over_ranks
from distill.losses.base import (
    LossInput,
    LossSchedule,
    LossTerms,
    Positions,
    by_language,
    cropped_states,
    masked_mean,
    position_mask,
)
from distill.text_tower import EncoderOutput


@dataclass(frozen=True)
class Hidden:
    """The states position by position, as a UNet's cross-attention reads them.

    The student's English lines up with the teacher's. Chinese position by position is SkyCLIP's loss, which trains a
    causal model to output the t-th English token's state after t Chinese tokens; off by default.
    """

    english: float = 1.0
    chinese: float = 0.0
    cosine: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    slots: Positions = "all"
    """Positions that count on max-length steps; on the others only text counts."""
    by_norm: bool = False
    """Weigh each position by the norm of the teacher's state."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    @property
    def uses_zh_padding(self) -> bool:
        """Whether max-length steps need the padding behind the Chinese text."""
        return self.chinese > 0 and self.slots != "text"

    def terms(self, step: LossInput) -> LossTerms:
        """`hidden_en` and `hidden_zh`; only on max-length steps where the student's English tokens are not shared."""
        if not step.padded_to_max and not step.aligned:
            return {}
        return {
            f"hidden_{language}": weight * self._distance(student, teacher, step.padded_to_max)
            for language, (weight, student, teacher) in by_language(step, self.chinese, self.english).items()
        }

    def _distance(self, student: EncoderOutput, teacher: EncoderOutput, padded_to_max: bool) -> torch.Tensor:
        mask = position_mask(student, teacher, padded_to_max, self.slots)
        student_states, teacher_states = cropped_states(student, teacher)
        by_position = self.cosine * (1 - F.cosine_similarity(student_states, teacher_states, dim=-1))
        if self.l1:
            by_position = by_position + self.l1 * (student_states - teacher_states).abs().mean(dim=-1)
        if self.l2:
            by_position = by_position + self.l2 * (student_states - teacher_states).square().mean(dim=-1)
        return masked_mean(by_position, mask * teacher_states.norm(dim=-1) if self.by_norm else mask)


@dataclass(frozen=True)
class Alignment:
    """Optimal-transport cost between the student's Chinese and the teacher's English states of the same pair.

    cost[i, j] = 1 - cos(chinese_i, english_j) over the text without its start token, marginals are uniform, and the
    plan P minimises the cost with entropy smoothing (Sinkhorn; Cuturi, 2013). The loss is sum P * cost: positions do
    not enter, but every English state has to be covered. P is detached: at the optimum its gradient is the entropy's.
    """

    weight: float = 0.5
    norm: float = 0.1
    """Weight of the squared difference of the norms of aligned states, relative to the teacher's squared norms."""
    smoothing: float = 0.05
    """Weight of the entropy, in units of the cost; towards 0 the alignment is hard."""
    rounds: int = 20
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        if self.smoothing <= 0 or self.rounds < 1:
            raise ValueError("losses.alignment: smoothing must be above 0 and rounds at least 1")

    def terms(self, step: LossInput) -> LossTerms:
        """`alignment`, the mean cost over the pairs, and `alignment_norm`."""
        student, student_mask = _without_start_token(step.chinese)
        teacher, teacher_mask = _without_start_token(step.target)
        cost = 1 - F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).mT
        plan = transport(cost.detach(), student_mask, teacher_mask, self.smoothing, self.rounds)
        terms = {"alignment": self.weight * (plan * cost).sum(dim=(1, 2)).mean()}
        if self.norm:
            # sum P (|s| - |t|)^2, by the marginals of P: no matrix of its size is kept for it.
            student_norm, teacher_norm = student.norm(dim=-1), teacher.norm(dim=-1)
            expected = (plan @ teacher_norm[..., None])[..., 0]
            squared = (plan.sum(dim=1) * teacher_norm.square()).sum()
            error = (plan.sum(dim=2) * student_norm.square()).sum() - 2 * (student_norm * expected).sum() + squared
            terms["alignment_norm"] = self.norm * error / mean_over_ranks(squared)
        return terms


def _without_start_token(states: EncoderOutput) -> tuple[torch.Tensor, torch.Tensor]:
    """States and mask without the start token, whose state is the same for every sentence."""
    return states.hidden_states[:, 1:], states.text_mask[:, 1:]


@torch.no_grad()
def transport(
    cost: torch.Tensor, row_mask: torch.Tensor, column_mask: torch.Tensor, smoothing: float, rounds: int
) -> torch.Tensor:
    """The plan [batch, n, m] between uniform masses on `row_mask` [batch, n] and `column_mask` [batch, m].

    Each mask has at least one true entry a pair. The plan sums to 1 for each pair; its column sums are exact, its row
    sums up to the error that the rounds leave.
    """
    kernel = -cost / smoothing
    log_rows = torch.where(row_mask, 0.0, -math.inf) - row_mask.sum(dim=1, keepdim=True).log()
    log_columns = torch.where(column_mask, 0.0, -math.inf) - column_mask.sum(dim=1, keepdim=True).log()
    column_potential = torch.zeros_like(log_columns).masked_fill(~column_mask, -math.inf)
    row_potential = log_rows
    for _ in range(rounds):
        row_potential = log_rows - torch.logsumexp(kernel + column_potential[:, None, :], dim=2)
        column_potential = log_columns - torch.logsumexp(kernel + row_potential[:, :, None], dim=1)
    return (kernel + row_potential[:, :, None] + column_potential[:, None, :]).exp()


@dataclass(frozen=True)
class EmptyPrompt:
    """The empty prompt at full length, the unconditional side of guidance: mean ||s - t||^2 / mean ||t||^2.

    Guidance at scale s multiplies an error here by 1 - s, -6.5 at 7.5.
    """

    weight: float = 1.0
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def terms(self, step: LossInput) -> LossTerms:
        """`empty_prompt`, the same on every rank; nothing where the step has no empty prompt."""
        if step.empty is None:
            return {}
        student, teacher = cropped_states(step.empty.student, step.empty.teacher)
        return {"empty_prompt": self.weight * (student - teacher).square().sum() / teacher.square().sum()}
