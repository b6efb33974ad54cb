"""The trained module (student, losses, decoder), and gradient caching for steps whose activations do not fit at once.

Losses look at the whole batch (contrastive, affinity, means over all tokens), so gradient caching (Gao et al., 2021)
computes them once on all outputs and runs only the towers in chunks: without gradients for the outputs, then again to
back-propagate each chunk's share of the outputs' gradient. One forward pass more; the gradients are exact.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from distill.geometry import Geometry
from distill.losses import EmptyPromptStates, LossesConfig, LossInput, LossTerms
from distill.losses.base import scheduled_terms
from distill.losses.translation import Decoder, Language
from distill.student.base import StudentEncoder
from distill.text_tower import EncoderOutput
from distill.train.batch import Targets, Teacher, TrainBatch
from distill.train.checkpoint import DECODER, trainable


@dataclass(frozen=True)
class EmptyPromptTarget:
    """The empty prompt: the student's ids, int64 [1, slots], and the teacher's states of it."""

    ids: torch.Tensor
    target: EncoderOutput


@dataclass(frozen=True)
class LossConstants:
    """What some losses need besides a batch; on the training device."""

    empty: EmptyPromptTarget | None = None
    geometry: Geometry | None = None
    aligned: bool = True
    """The student's English token ids are the teacher's."""


class Task(nn.Module):
    """The module that is trained; one forward per step, so that any wrapper sees every use of a weight."""

    def __init__(self, student: StudentEncoder, losses: LossesConfig, extras: LossConstants | None = None) -> None:
        """Train `student`, and the decoder where a loss wants one."""
        super().__init__()
        self.student = student
        self._losses = losses
        self._extras = extras or LossConstants()
        self.decoder: Decoder | None = losses.translation.build_decoder(student) if losses.translation else None

    def trainable(self) -> dict[str, nn.Parameter]:
        """The weights that train, by the names of a checkpoint."""
        decoder = trainable(self.decoder) if self.decoder else {}
        return {**trainable(self.student), **{DECODER + name: weight for name, weight in decoder.items()}}

    def forward(self, batch: TrainBatch, targets: Targets, progress: float = 0.0) -> LossTerms:
        """Named loss terms, scalars; `done` is the share of the run that lies behind."""
        return self.terms(
            batch, self.student(batch.student_zh_ids), self.student(batch.student_en_ids), targets, progress
        )

    def terms(
        self, batch: TrainBatch, chinese: EncoderOutput, english: EncoderOutput, targets: Targets, progress: float
    ) -> LossTerms:
        """The same of the student's states."""
        empty = self._extras.empty
        step = LossInput(
            chinese=chinese,
            target=targets.pairs,
            english=english,
            english_target=targets.english,
            padded_to_max=batch.padded_to_max,
            aligned=self._extras.aligned,
            empty=EmptyPromptStates(self.student(empty.ids), empty.target) if empty else None,
            geometry=self._extras.geometry,
            translation_losses=self._translation_losses(batch, chinese, english),
            progress=progress,
        )
        # Cosines near one and contrastive logits need more digits than a half-precision product keeps.
        with torch.autocast(chinese.pooled.device.type, enabled=False):
            return scheduled_terms(self._losses.enabled, step)

    def _translation_losses(self, batch: TrainBatch, chinese: EncoderOutput, english: EncoderOutput) -> LossTerms:
        """The decoder's cross-entropy by direction, on the pairs whose English the student read."""
        if self.decoder is None or self._losses.translation is None:
            return {}
        decoder_rows = slice(None, None, self._losses.translation.decoder.every)
        states = {"zh": chinese.rows(batch.english_rows).rows(decoder_rows), "en": english.rows(decoder_rows)}
        ids: dict[Language, torch.Tensor] = {
            "zh": batch.student_zh_ids[batch.english_rows][decoder_rows],
            "en": batch.student_en_ids[decoder_rows],
        }
        return {
            f"{output_language}_from_{input_language}": self.decoder(
                self.student, states[input_language], ids[output_language], output_language
            )
            for output_language in ids
            for input_language in states
            if f"{output_language}_from_{input_language}" in self._losses.translation.weights
        }


def total(terms: LossTerms) -> torch.Tensor:
    """The loss of a step: the sum of its terms."""
    return torch.stack(list(terms.values())).sum()


Autocast = Callable[[], AbstractContextManager[None]]


def chunked_targets(teacher: Teacher, chunks: Sequence[TrainBatch]) -> Targets:
    """The teacher's states of all parts."""
    targets = [teacher.targets(part) for part in chunks]
    return Targets(
        EncoderOutput.cat([part.pairs for part in targets]), EncoderOutput.cat([part.english for part in targets])
    )


def cached_backward(
    task: Task, batch: TrainBatch, targets: Targets, progress: float, num_chunks: int, autocast: Autocast
) -> LossTerms:
    """Terms of the step, whose gradients are added to the weights of `task`; `count` parts."""
    chunks = batch.chunks(num_chunks)
    with torch.no_grad(), autocast():
        outputs = [(task.student(part.student_zh_ids), task.student(part.student_en_ids)) for part in chunks]
    chinese, english = (EncoderOutput.cat([pair[side] for pair in outputs]).detached_leaf() for side in (0, 1))
    with autocast():
        terms = task.terms(batch, chinese, english, targets, progress)
    total(terms).backward()  # type: ignore[no-untyped-call]
    for index, chunk in enumerate(chunks):
        for ids, states in ((chunk.student_zh_ids, chinese), (chunk.student_en_ids, english)):
            with autocast():
                recomputed = task.student(ids)
            rows = slice(index * len(ids), (index + 1) * len(ids))
            output_pairs = ((recomputed.hidden_states, states.hidden_states), (recomputed.pooled, states.pooled))
            with_gradient = [
                (one, whole.grad[rows]) for one, whole in output_pairs if whole.grad is not None and one.requires_grad
            ]
            torch.autograd.backward([one for one, _ in with_gradient], [gradient for _, gradient in with_gradient])
    return terms
