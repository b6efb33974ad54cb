"""What the towers read in a step: of a batch, the sentences and slots that a loss looks at."""

from dataclasses import dataclass
from functools import partial

import torch

from data.batches import Batch, Batches
from distill.states import States, up_to_end


@dataclass(frozen=True)
class Reading:
    """One rank's share of a step, int64 [rows, slots] each.

    `chinese` and `teacher` hold every pair, `english` and `teacher_english` every n-th of them.
    """

    chinese: torch.Tensor
    english: torch.Tensor
    teacher: torch.Tensor
    teacher_english: torch.Tensor | None
    """None where the states of `teacher` have all the slots that the losses look at."""
    every: int
    full: bool

    @property
    def rows(self) -> slice:
        """Which pairs' English is read."""
        return slice(None, None, self.every)

    def to(self, device: torch.device) -> "Reading":
        """The same on `device`."""
        move = partial(torch.Tensor.to, device=device, non_blocking=True)
        again = None if self.teacher_english is None else move(self.teacher_english)
        return Reading(move(self.chinese), move(self.english), move(self.teacher), again, self.every, self.full)

    def parts(self, count: int) -> list["Reading"]:
        """`count` equal parts, in order; each a multiple of `every` pairs."""
        chinese, english, teacher = (view.chunk(count) for view in (self.chinese, self.english, self.teacher))
        again = [None] * count if self.teacher_english is None else self.teacher_english.chunk(count)
        return [
            Reading(chinese[part], english[part], teacher[part], again[part], self.every, self.full)
            for part in range(count)
        ]


@dataclass(frozen=True)
class Targets:
    """The teacher's states of every pair, and of those whose English the student reads."""

    pairs: States
    english: States


class Readings:
    """The readings of one rank by step.

    On full steps only what a loss compares slot by slot has all slots: a causal tower's states of the text do not
    depend on what follows, so without a loss that looks at Chinese padding the Chinese is read tight.
    """

    def __init__(self, batches: Batches, every: int, ends: tuple[int, int], chinese_padding: bool) -> None:
        """`ends` are the end-of-text ids of teacher and student."""
        self._batches, self._every, self._chinese_padding = batches, every, chinese_padding
        self._teacher_end, self._student_end = ends

    def __getitem__(self, step: int) -> Reading:
        """The reading of `step`, counted from 0."""
        batch: Batch = self._batches[step]
        english = batch.student_en[:: self._every]
        if not batch.full or self._chinese_padding:
            return Reading(batch.student_zh, english, batch.teacher_en, None, self._every, batch.full)
        chinese, teacher = _tight(batch.student_zh, self._student_end), _tight(batch.teacher_en, self._teacher_end)
        return Reading(chinese, english, teacher, batch.teacher_en[:: self._every], self._every, batch.full)


def _tight(ids: torch.Tensor, end_of_text: int) -> torch.Tensor:
    longest = int(up_to_end(ids, end_of_text).sum(dim=1).max())
    return ids[:, :longest].contiguous()
