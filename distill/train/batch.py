"""What the towers read in a step: of a batch, the sentences and slots that a loss looks at.

Readings drawn ahead of their step.

The frozen teacher: outside `prepare`, outside checkpoints, always in evaluation mode.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from data.loader.batches import Batch, Batches
from distill import text_tower
from distill.text_tower import Pretrained, States, up_to_end


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


class Prefetch:
    """Draws the next reading on a thread while this one trains."""

    def __init__(self, readings: Readings, start: int, stop: int) -> None:
        """Start on the batch of step `start`; `stop` is the first step that is never asked for."""
        self._readings, self._stop = readings, stop
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(readings.__getitem__, start)

    def __getitem__(self, step: int) -> Reading:
        """The reading of `step`; steps are asked for one after the other."""
        reading = self._next.result()
        if step + 1 < self._stop:
            self._next = self._pool.submit(self._readings.__getitem__, step + 1)
        return reading

    def __enter__(self) -> "Prefetch":
        """The readings themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._pool.shutdown(cancel_futures=True)


class Teacher:
    """A frozen CLIP text tower that turns English ids into targets."""

    def __init__(self, pretrained: Pretrained, device: torch.device) -> None:
        """Take over the model of `pretrained`; it is changed and moved."""
        model = text_tower.prepare(pretrained.model, on_cpu=device.type == "cpu")
        model.eval()  # type: ignore[no-untyped-call]
        model.requires_grad_(False).to(device=device)  # type: ignore[call-arg]
        self._model, self._states, self.device = model, pretrained.states, device

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> States:
        """Targets of `ids`, int64 [batch, slots]."""
        return text_tower.run(self._model, ids, self._states)

    def targets(self, reading: Reading) -> Targets:
        """What the student is to say of a reading."""
        pairs = self(reading.teacher)
        again = reading.teacher_english
        return Targets(pairs, pairs.rows(reading.rows) if again is None else self(again))

    def compile(self) -> None:
        """Let torch compile the tower, for any number of slots."""
        self._model.compile(dynamic=True)
