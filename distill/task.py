"""What a step computes: the student's states on a batch, and the terms of its losses."""

from dataclasses import dataclass

import torch
from torch import nn

from distill.checkpoint import DECODER, trainable
from distill.decoder import Decoder, Language
from distill.geometry import Geometry
from distill.losses import Empty, LossesConfig, Step, Terms
from distill.reading import Reading, Targets
from distill.states import States
from distill.student.kind import StudentTower


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
