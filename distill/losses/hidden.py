"""The states slot by slot against the teacher's.

Chinese states against English ones, whose tokens do not line up: a soft alignment found by optimal transport.

The empty prompt's own term.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.losses.base import Schedule, Slots, Step, Terms, counted, mean_of_counted, sides
from distill.text_tower import States


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


@dataclass(frozen=True)
class Alignment:
    """The cost of carrying the student's Chinese states to the teacher's English states of the same pair.

    cost[i, j] = 1 - cos(chinese_i, english_j) over the text without its start token; every Chinese state sends the
    same mass, every English state receives the same, and the plan P is the cheapest such one, smoothed by entropy
    (Sinkhorn). The loss is sum P * cost: no position enters, but no English state may be left out, nor one Chinese
    state stand for all. P has no gradient of its own: at the optimum it would be the entropy's alone.
    """

    weight: float = 0.5
    smoothing: float = 0.05
    """Weight of the entropy, in units of the cost: towards 0 the alignment is hard."""
    rounds: int = 20
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        """Refuse what gives no plan."""
        if self.smoothing <= 0 or self.rounds < 1:
            raise ValueError("losses.alignment: smoothing must be above 0 and rounds at least 1")

    def terms(self, step: Step) -> Terms:
        """`alignment`: the mean cost over the pairs."""
        ours, ours_count = _content(step.chinese)
        theirs, theirs_count = _content(step.target)
        cost = 1 - F.normalize(ours, dim=-1) @ F.normalize(theirs, dim=-1).mT
        plan = transport(cost.detach(), ours_count, theirs_count, self.smoothing, self.rounds)
        return {"alignment": self.weight * (plan * cost).sum(dim=(1, 2)).mean()}


def _content(states: States) -> tuple[torch.Tensor, torch.Tensor]:
    """States and mask without the start token, whose state is the same for every sentence."""
    return states.tokens[:, 1:], states.is_text[:, 1:]


@torch.no_grad()
def transport(
    cost: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, smoothing: float, rounds: int
) -> torch.Tensor:
    """The plan [batch, n, m] from uniform mass on `rows` [batch, n] to uniform mass on `columns` [batch, m].

    `rows` and `columns` are bool masks with at least one true entry a pair; the plan sums to 1 for each pair, its
    columns exactly uniform, its rows up to what the rounds leave.
    """
    kernel = -cost / smoothing
    log_rows = torch.where(rows, 0.0, -math.inf) - rows.sum(dim=1, keepdim=True).log()
    log_columns = torch.where(columns, 0.0, -math.inf) - columns.sum(dim=1, keepdim=True).log()
    right = torch.zeros_like(log_columns).masked_fill(~columns, -math.inf)
    left = log_rows
    for _ in range(rounds):
        left = log_rows - torch.logsumexp(kernel + right[:, None, :], dim=2)
        right = log_columns - torch.logsumexp(kernel + left[:, :, None], dim=1)
    return (kernel + left[:, :, None] + right[:, None, :]).exp()


@dataclass(frozen=True)
class EmptyPrompt:
    """All slots of the empty prompt, the unconditional side of guidance.

    Guidance at scale s multiplies an error here by 1 - s, -6.5 at 7.5. The squared error over the teacher's squared
    norm, both summed over all slots: mean ||s - t||^2 / mean ||t||^2.
    """

    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)

    def terms(self, step: Step) -> Terms:
        """`empty_prompt`, the same on every rank."""
        assert step.empty is not None
        ours, theirs = step.empty.student.tokens, step.empty.teacher.tokens
        slots = min(ours.shape[1], theirs.shape[1])
        ours, theirs = ours[:, :slots], theirs[:, :slots]
        return {"empty_prompt": self.weight * (ours - theirs).square().sum() / theirs.square().sum()}
