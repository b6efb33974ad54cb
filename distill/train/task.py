"""What a step computes: the student's states on a batch, and the terms of its losses.

A step whose activations do not fit at once: the same gradients, the activations of one part at a time.

The losses look at the whole batch (contrastive, affinity, means over all tokens), so they are computed once on all
states, and only the towers run in parts: without gradients to get the states, then again to carry each part's share of
the states' gradient on to the weights (Gao et al. 2021, gradient caching). One forward pass more, and nothing is
approximated.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from distill.geometry import Geometry
from distill.losses import Empty, LossesConfig, Step, Terms
from distill.losses.translation import Decoder, Language
from distill.student.base import StudentTower
from distill.text_tower import States
from distill.train.batch import Reading, Targets, Teacher
from distill.train.checkpoint import DECODER, trainable


@dataclass(frozen=True)
class EmptyPrompt:
    """The empty prompt: the student's ids, int64 [1, slots], and the teacher's states of it."""

    ids: torch.Tensor
    target: States


@dataclass(frozen=True)
class Extras:
    """What some losses need besides a batch; on the training device."""

    empty: EmptyPrompt | None = None
    geometry: Geometry | None = None
    end_of_text: int = -1
    """Of the student's vocabulary; what ends the decoder's sentences."""
    aligned: bool = True
    """The student's English tokens are the teacher's."""


class Task(nn.Module):
    """The module that is trained; one forward per step, so that any wrapper sees every use of a weight."""

    def __init__(self, student: StudentTower, losses: LossesConfig, extras: Extras | None = None) -> None:
        """Train `student`, and the decoder where a loss wants one."""
        super().__init__()
        self.student = student
        self._losses = losses
        self._extras = extras or Extras()
        self.decoder: Decoder | None = None
        if losses.translation:
            width = student.output_table().shape[1]
            self.decoder = Decoder(losses.translation.decoder, width, student.state_width, student.slots)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The weights that train, by the names of a checkpoint."""
        decoder = trainable(self.decoder) if self.decoder else {}
        return {**trainable(self.student), **{DECODER + name: weight for name, weight in decoder.items()}}

    def forward(self, reading: Reading, targets: Targets, done: float = 0.0) -> Terms:
        """Named loss terms, scalars; `done` is the share of the run that lies behind."""
        return self.terms(reading, self.student(reading.chinese), self.student(reading.english), targets, done)

    def terms(self, reading: Reading, chinese: States, english: States, targets: Targets, done: float) -> Terms:
        """The same of the student's states."""
        empty = self._extras.empty
        step = Step(
            chinese=chinese,
            target=targets.pairs,
            english=english,
            english_target=targets.english,
            full=reading.full,
            aligned=self._extras.aligned,
            empty=Empty(self.student(empty.ids), empty.target) if empty else None,
            geometry=self._extras.geometry,
            spoken=self._spoken(reading, chinese, english),
            done=done,
        )
        # Cosines near one and contrastive logits need more digits than a half-precision product keeps.
        with torch.autocast(chinese.pooled.device.type, enabled=False):
            return self._losses.terms(step)

    def _spoken(self, reading: Reading, chinese: States, english: States) -> Terms:
        """The decoder's cross-entropy by direction, on the pairs whose English the student read."""
        if self.decoder is None or self._losses.translation is None:
            return {}
        some = slice(None, None, self._losses.translation.decoder.every)
        states = {"zh": chinese.rows(reading.rows).rows(some), "en": english.rows(some)}
        ids: dict[Language, torch.Tensor] = {"zh": reading.chinese[reading.rows][some], "en": reading.english[some]}
        return {
            f"{said}_from_{read}": self.decoder(self.student, states[read], ids[said], self._extras.end_of_text, said)
            for said in ids
            for read in states
            if f"{said}_from_{read}" in self._losses.translation.weights
        }


def total(terms: Terms) -> torch.Tensor:
    """The loss of a step: the sum of its terms."""
    return torch.stack(list(terms.values())).sum()


Autocast = Callable[[], AbstractContextManager[None]]


def targets_in_parts(teacher: Teacher, parts: Sequence[Reading]) -> Targets:
    """The teacher's states of all parts."""
    every = [teacher.targets(part) for part in parts]
    return Targets(_joined([part.pairs for part in every]), _joined([part.english for part in every]))


def backward_in_parts(
    task: Task, reading: Reading, targets: Targets, done: float, count: int, autocast: Autocast
) -> Terms:
    """Terms of the step, whose gradients are added to the weights of `task`; `count` parts."""
    parts = reading.parts(count)
    with torch.no_grad(), autocast():
        read = [(task.student(part.chinese), task.student(part.english)) for part in parts]
    chinese, english = (_leaf(_joined([each[side] for each in read])) for side in (0, 1))
    with autocast():
        terms = task.terms(reading, chinese, english, targets, done)
    total(terms).backward()  # type: ignore[no-untyped-call]
    for index, part in enumerate(parts):
        for ids, states in ((part.chinese, chinese), (part.english, english)):
            with autocast():
                again = task.student(ids)
            rows = slice(index * len(ids), (index + 1) * len(ids))
            wanted = ((again.tokens, states.tokens), (again.pooled, states.pooled))
            held = [(one, whole.grad[rows]) for one, whole in wanted if whole.grad is not None and one.requires_grad]
            torch.autograd.backward([one for one, _ in held], [gradient for _, gradient in held])
    return terms


def _joined(parts: Sequence[States]) -> States:
    return States(*(torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "pooled", "is_text")))


def _leaf(states: States) -> States:
    return States(states.tokens.requires_grad_(), states.pooled.requires_grad_(), states.is_text)
