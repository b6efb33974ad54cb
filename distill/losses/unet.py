"""What a UNet's own queries read from the student's states, against what they read from the teacher's.

The error that a UNet's keys and values carry on, slot by slot.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.distributed import mean_over_ranks
from distill.geometry import CrossAttention
from distill.losses.base import LossInput, LossSchedule, LossTerms, Positions, by_language, masked_mean, position_mask
from distill.text_tower import EncoderOutput


@dataclass(frozen=True)
class Readout:
    """softmax(q K^T / sqrt(d)) V for stored queries q: blind to the order and number of tokens, as the UNet is.

    For every cross-attention of the UNet, K = h to_k^T and V = h to_v^T over all slots; the squared difference of what
    is read from student and teacher, over the squared norm of the teacher's, averaged over the cross-attentions.
    """

    chinese: float = 1.0
    english: float = 0.0
    queries: int = 32
    """Of those stored for each cross-attention, how many are asked."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        """Refuse to ask nothing."""
        if self.queries < 1:
            raise ValueError(f"losses.readout.queries: {self.queries} is below 1")

    @property
    def uses_zh_padding(self) -> bool:
        """Whether full steps need the slots behind the Chinese text."""
        return self.chinese > 0

    def terms(self, step: LossInput) -> LossTerms:
        """`readout_zh` and `readout_en`, on full steps alone: the UNet reads the padding too."""
        if not step.padded_to_max:
            return {}
        assert step.geometry is not None
        terms = {}
        for language, (weight, student, teacher) in by_language(step, self.chinese, self.english).items():
            if weight:
                errors = [
                    self._error(layer, student.hidden_states, teacher.hidden_states) for layer in step.geometry.layers
                ]
                terms[f"readout_{language}"] = weight * torch.stack(errors).mean()
        return terms

    def _error(self, layer: CrossAttention, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        student_readout, teacher_readout = attend(layer, student, self.queries), attend(layer, teacher, self.queries)
        return (student_readout - teacher_readout).square().mean() / mean_over_ranks(teacher_readout.square().mean())


def attend(layer: CrossAttention, states: torch.Tensor, max_queries: int) -> torch.Tensor:
    """What the first `most` queries of `layer` read from `states` [batch, slots, width]: [batch, heads, n, d]."""
    batch, length, _ = states.shape
    keys, values = (
        F.linear(states, weight).view(batch, length, layer.heads, -1).transpose(1, 2)
        for weight in (layer.key, layer.value)
    )
    query = layer.query[:max_queries].view(len(layer.query[:max_queries]), layer.heads, -1).transpose(0, 1)
    return F.scaled_dot_product_attention(query.expand(batch, -1, -1, -1), keys, values, scale=layer.scale)


@dataclass(frozen=True)
class KvMetric:
    """(h_s - h_t)^T G (h_s - h_t) over t^T G t: the squared error of all keys and values at once.

    G sums to_k^T to_k and to_v^T to_v over the UNet's cross-attentions, each scaled to trace 1, and is scaled to trace
    `width`, so that G = identity is the plain relative squared error. Slot by slot: right for English and for padding.
    """

    english: float = 1.0
    chinese_padding: float = 0.0
    """Weight of the slots of full steps that are padding for Chinese and English alike."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    @property
    def uses_zh_padding(self) -> bool:
        """Whether full steps need the slots behind the Chinese text."""
        return self.chinese_padding > 0

    def terms(self, step: LossInput) -> LossTerms:
        """`kv_metric_en`, over the text on tight steps and all slots on full ones; `kv_metric_zh` on full steps."""
        assert step.geometry is not None
        metric, terms = step.geometry.metric, {}
        if self.english and (step.padded_to_max or step.aligned):
            distance = _kv_distance(step.english, step.english_target, metric, step.padded_to_max, "all")
            terms["kv_metric_en"] = self.english * distance
        if self.chinese_padding and step.padded_to_max:
            distance = _kv_distance(step.chinese, step.target, metric, True, "padding")
            terms["kv_metric_zh"] = self.chinese_padding * distance
        return terms


def _kv_distance(
    student: EncoderOutput, teacher: EncoderOutput, metric: torch.Tensor, padded_to_max: bool, positions: Positions
) -> torch.Tensor:
    mask = position_mask(student, teacher, padded_to_max, positions)
    length = mask.shape[1]
    diff, teacher_states = (
        student.hidden_states[:, :length] - teacher.hidden_states[:, :length],
        teacher.hidden_states[:, :length],
    )
    scale = mean_over_ranks(masked_mean(((teacher_states @ metric) * teacher_states).sum(dim=-1), mask))
    error = masked_mean(((diff @ metric) * diff).sum(dim=-1), mask)
    return error / scale.clamp(min=torch.finfo(torch.float32).tiny)
