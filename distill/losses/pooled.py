"""Losses on the pooled state, the projected end-of-text: distance to the teacher, similarities to others, InfoNCE."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.distributed import gather_rows, global_row_indices, mean_over_ranks
from distill.losses.base import LossInput, LossSchedule, LossTerms, by_language


@dataclass(frozen=True)
class Pooled:
    """Distance of the pooled states, the input of retrieval and of SDXL's pooled conditioning."""

    chinese: float = 1.0
    english: float = 1.0
    cosine: float = 1.0
    mse: float = 0.0
    """Weight of the squared error, in units of the teacher's own mean squared norm."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def terms(self, step: LossInput) -> LossTerms:
        """`pooled_zh` and `pooled_en`."""
        return {
            f"pooled_{language}": weight * self._distance(student.pooled, teacher.pooled)
            for language, (weight, student, teacher) in by_language(step, self.chinese, self.english).items()
        }

    def _distance(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        loss = self.cosine * (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()
        if self.mse:
            loss = loss + self.mse * F.mse_loss(student, teacher) / mean_over_ranks(teacher.square().mean())
        return loss


@dataclass(frozen=True)
class Affinity:
    """In-batch similarities (relational distillation, Park et al. 2019, on cosines).

    With z the student's Chinese and t the teacher's English, pooled and normalised, over i != j of the global batch:
    mean (z_i . z_j - t_i . t_j)^2. It constrains distances between sentences, not their positions.
    """

    weight: float = 1.0
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def terms(self, step: LossInput) -> LossTerms:
        """`affinity`: the mean over this rank's rows against the columns of all ranks; 0 for a batch of one."""
        student, teacher = _normalised(step)
        diff = student @ gather_rows(student).T - teacher @ gather_rows(teacher).T
        off_diagonal = torch.ones_like(diff).scatter(1, global_row_indices(student)[:, None], 0.0)
        return {"affinity": self.weight * (diff.square() * off_diagonal).sum() / off_diagonal.sum().clamp(min=1)}


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE between Chinese and the teacher's English over the global batch, in both directions.

    Pairs whose English has the same teacher embedding are not each other's negatives.
    """

    weight: float = 0.1
    temperature: float = 0.05
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"losses.contrastive.temperature: {self.temperature} is not above 0")

    def terms(self, step: LossInput) -> LossTerms:
        """`contrastive`: the mean over this rank's rows against the columns of all ranks."""
        student, teacher = _normalised(step)
        all_student, all_teacher = gather_rows(student), gather_rows(teacher)
        labels = global_row_indices(student)
        same_english = (teacher @ all_teacher.T > 0.999).scatter(1, labels[:, None], False)
        losses = [
            F.cross_entropy((query @ keys.T / self.temperature).masked_fill(same_english, float("-inf")), labels)
            for query, keys in ((student, all_teacher), (teacher, all_student))
        ]
        return {"contrastive": self.weight * (losses[0] + losses[1]) / 2}


@dataclass(frozen=True)
class Similarity:
    """How near a sentence is to others, as a distribution (Fang et al. 2021): what it is told apart from, and how hard.

    The others are the teacher's vectors k_j of the global batch and of `anchors` more pairs, which never grow stale, as
    the teacher is frozen. With s the student's vector and t the teacher's, all of length 1: KL divergence of softmax_j
    (s . k_j / temperature) from softmax_j(t . k_j / temperature). `pooled` beside it keeps the place itself.
    """

    chinese: float = 1.0
    english: float = 1.0
    temperature: float = 0.05
    anchors: int = 16_384
    """Pairs of the mixture, drawn from behind the run's last step; the teacher encodes them at every start."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.anchors < 1:
            raise ValueError("losses.similarity: temperature must be above 0, and anchors at least 1")

    def terms(self, step: LossInput) -> LossTerms:
        """`similarity_zh` and `similarity_en`."""
        assert step.anchors is not None
        others = torch.cat([gather_rows(F.normalize(step.target.pooled, dim=-1)), step.anchors])
        terms = LossTerms()
        for language, (weight, student, teacher) in by_language(step, self.chinese, self.english).items():
            near, right = (
                F.log_softmax(F.normalize(output.pooled, dim=-1) @ others.T / self.temperature, dim=-1)
                for output in (student, teacher)
            )
            terms[f"similarity_{language}"] = weight * F.kl_div(near, right, reduction="batchmean", log_target=True)
        return terms


def _normalised(step: LossInput) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors [rows, dim] of the student's Chinese and the teacher's English."""
    return F.normalize(step.chinese.pooled, dim=-1), F.normalize(step.target.pooled, dim=-1)
