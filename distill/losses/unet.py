"""What a UNet's own queries read from the student's states, against what they read from the teacher's.

The error that a UNet's keys and values carry on, slot by slot.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from distill.distributed import mean_over_ranks
from distill.geometry import CrossAttention
from distill.losses.base import Schedule, Slots, Step, Terms, counted, mean_of_counted, sides
from distill.text_tower import States


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
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        """Refuse to ask nothing."""
        if self.queries < 1:
            raise ValueError(f"losses.readout.queries: {self.queries} is below 1")

    @property
    def reads_chinese_padding(self) -> bool:
        """Whether full steps need the slots behind the Chinese text."""
        return self.chinese > 0

    def terms(self, step: Step) -> Terms:
        """`readout_zh` and `readout_en`, on full steps alone: the UNet reads the padding too."""
        if not step.full:
            return {}
        assert step.geometry is not None
        terms = {}
        for language, (weight, student, teacher) in sides(step, self.chinese, self.english).items():
            if weight:
                errors = [self._error(layer, student.tokens, teacher.tokens) for layer in step.geometry.layers]
                terms[f"readout_{language}"] = weight * torch.stack(errors).mean()
        return terms

    def _error(self, layer: CrossAttention, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        ours, theirs = read(layer, student, self.queries), read(layer, teacher, self.queries)
        return (ours - theirs).square().mean() / mean_over_ranks(theirs.square().mean())


def read(layer: CrossAttention, states: torch.Tensor, most: int) -> torch.Tensor:
    """What the first `most` queries of `layer` read from `states` [batch, slots, width]: [batch, heads, n, d]."""
    batch, slots, _ = states.shape
    keys, values = (
        F.linear(states, weight).view(batch, slots, layer.heads, -1).transpose(1, 2)
        for weight in (layer.key, layer.value)
    )
    query = layer.query[:most].view(len(layer.query[:most]), layer.heads, -1).transpose(0, 1)
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
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def reads_chinese_padding(self) -> bool:
        """Whether full steps need the slots behind the Chinese text."""
        return self.chinese_padding > 0

    def terms(self, step: Step) -> Terms:
        """`kv_metric_en`, over the text on tight steps and all slots on full ones; `kv_metric_zh` on full steps."""
        assert step.geometry is not None
        metric, terms = step.geometry.metric, {}
        if self.english and (step.full or step.aligned):
            distance = _distance(step.english, step.english_target, metric, step.full, "all")
            terms["kv_metric_en"] = self.english * distance
        if self.chinese_padding and step.full:
            distance = _distance(step.chinese, step.target, metric, True, "padding")
            terms["kv_metric_zh"] = self.chinese_padding * distance
        return terms


def _distance(student: States, teacher: States, metric: torch.Tensor, full: bool, slots: Slots) -> torch.Tensor:
    chosen = counted(student, teacher, full, slots)
    width = chosen.shape[1]
    apart, theirs = student.tokens[:, :width] - teacher.tokens[:, :width], teacher.tokens[:, :width]
    scale = mean_over_ranks(mean_of_counted(((theirs @ metric) * theirs).sum(dim=-1), chosen))
    error = mean_of_counted(((apart @ metric) * apart).sum(dim=-1), chosen)
    return error / scale.clamp(min=torch.finfo(torch.float32).tiny)
