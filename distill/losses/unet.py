"""Losses in a UNet's geometry: attention outputs for its stored queries, and the error of its keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.utils.checkpoint import checkpoint

from distill.distributed import mean_over_ranks
from distill.geometry import CrossAttention, attention_errors
from distill.losses.base import (
    LossInput,
    LossSchedule,
    LossTerms,
    Positions,
    by_language,
    cropped_states,
    position_mask,
)
from distill.text_tower import EncoderOutput


@dataclass(frozen=True)
class Readout:
    """softmax(q K^T / sqrt(d)) V for stored queries q: like the UNet, invariant to the order and number of tokens.

    For every cross-attention of the UNet, K = h to_k^T and V = h to_v^T over all positions. The loss is the squared
    difference of the outputs for student and teacher over the teacher's squared norm times the share of it that differs
    between prompts (most is the same for all), averaged over the cross-attentions. Of SDXL's two encoders the first is
    taught already: h is its state and the second's side by side.
    """

    chinese: float = 1.0
    english: float = 0.0
    queries: int = 32
    """Number of stored queries to use in each cross-attention, drawn anew in every step."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"losses.readout.queries: {self.queries} is below 1")

    @property
    def uses_zh_padding(self) -> bool:
        """Whether max-length steps need the padding behind the Chinese text."""
        return self.chinese > 0

    def terms(self, step: LossInput) -> LossTerms:
        """`readout_zh` and `readout_en`, on max-length steps alone: the UNet reads the padding too."""
        if not step.padded_to_max:
            return {}
        assert step.geometry is not None
        layers = [layer.drawn(step.draw, self.queries) for layer in step.geometry.layers]
        terms = {}
        for language, (weight, student, teacher) in by_language(step, self.chinese, self.english).items():
            states = student.hidden_states, teacher.hidden_states
            if step.first:
                first = step.first.of(language)
                states = torch.cat([first[0], states[0]], dim=2), torch.cat([first[1], states[1]], dim=2)
            errors, norms = readout_sums(layers, *states)
            terms[f"readout_{language}"] = weight * (errors / mean_over_ranks(norms) / step.geometry.shares).mean()
        return terms


READOUT_BYTES = 1 << 29
"""Activations of the read-out at once: rows are computed in chunks, and again in the backward pass."""


def readout_sums(layers: Sequence[CrossAttention], student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Sums of the squared error and of the teacher's squared read-out by cross-attention, [2, layers].

    `student` and `teacher` are states [batch, length, width] of the same texts.
    """
    inner = sum(len(layer.key) for layer in layers)
    length = max(student.shape[1], teacher.shape[1])
    rows = max(1, READOUT_BYTES // (4 * inner * (2 * length + 3 * len(layers[0].query))))
    if len(student) <= rows:
        return attention_errors(layers, student, teacher)
    sums = [
        checkpoint(attention_errors, layers, *states, use_reentrant=False)
        for states in zip(torch.split(student, rows), torch.split(teacher, rows), strict=True)
    ]
    return torch.stack(sums).sum(dim=0)


@dataclass(frozen=True)
class KvMetric:
    """(h_s - h_t)^T G (h_s - h_t) over t^T G t: the squared error of all keys and values at once.

    G sums to_k^T to_k and to_v^T to_v over the UNet's cross-attentions, each scaled to trace 1, and is scaled to trace
    `width`; without a file of them it is the identity: the relative squared error. Position by position, so for English
    and padding.
    """

    english: float = 1.0
    chinese_padding: float = 0.0
    """Weight of the positions of max-length steps that are padding in Chinese and English."""
    schedule: LossSchedule = field(default_factory=LossSchedule)

    @property
    def uses_zh_padding(self) -> bool:
        """Whether max-length steps need the padding behind the Chinese text."""
        return self.chinese_padding > 0

    def terms(self, step: LossInput) -> LossTerms:
        """`kv_metric_en`, over text or, on max-length steps, all positions; `kv_metric_zh` on max-length steps."""
        metric, terms = None if step.geometry is None else step.geometry.metric, {}
        if self.english and (step.padded_to_max or step.aligned):
            distance = _kv_distance(step.english, step.english_target, metric, step.padded_to_max, "all")
            terms["kv_metric_en"] = self.english * distance
        if self.chinese_padding and step.padded_to_max:
            distance = _kv_distance(step.chinese, step.target, metric, True, "padding")
            terms["kv_metric_zh"] = self.chinese_padding * distance
        return terms


def _kv_distance(
    student: EncoderOutput, teacher: EncoderOutput, metric: torch.Tensor | None, padded_to_max: bool, where: Positions
) -> torch.Tensor:
    mask = position_mask(student, teacher, padded_to_max, where)
    student_states, teacher_states = cropped_states(student, teacher)
    norm = mean_over_ranks((_quadratic(teacher_states, metric) * mask).sum())
    error = (_quadratic(student_states - teacher_states, metric) * mask).sum()
    return error / norm.clamp(min=torch.finfo(torch.float32).tiny)


def _quadratic(states: torch.Tensor, metric: torch.Tensor | None) -> torch.Tensor:
    """h^T G h for every state of [batch, length, width]; G is the identity where `metric` is None."""
    return ((states if metric is None else states @ metric) * states).sum(dim=-1)
