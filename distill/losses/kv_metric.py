"""The error that a UNet's keys and values carry on, slot by slot."""

from dataclasses import dataclass, field

import torch

from distill.gather import mean_over_ranks
from distill.losses.slots import Slots, counted, mean_of_counted
from distill.losses.step import Schedule, Step, Terms
from distill.states import States


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
