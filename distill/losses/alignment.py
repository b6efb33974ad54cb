"""Chinese states against English ones, whose tokens do not line up: a soft alignment found by optimal transport."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.losses.step import Schedule, Step, Terms
from distill.states import States


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
