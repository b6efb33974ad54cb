"""The trained module (student, losses, decoder), and gradient caching for steps whose activations do not fit at once.

Losses look at the whole batch (contrastive, affinity, means over all tokens), so gradient caching (Gao et al., 2021)
computes them once on all outputs and runs only the towers in chunks: without gradients for the outputs, then again to
back-propagate each chunk's share of the outputs' gradient. One forward pass more; the gradients are exact.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from distill.geometry import Geometry
from distill.losses import EmptyPromptStates, LossesConfig, LossInput, LossTerms
from distill.losses.base import scheduled_terms
from distill.losses.translation import Decoder
from distill.student.base import ClipStudent, Language, StudentEncoder
from distill.text_tower import EncoderOutput, StateLayer
from distill.train.batch import Targets, TrainBatch
from distill.train.checkpoint import DECODER, trainable
from distill.train.memory import FirstShape
from distill.train.pair import FirstEncoder
from distill.train.passes import Passes, chunked, encode_pooled, join_passes, split_rows

Autocast = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class EmptyPromptTarget:
    """The empty prompt: the student's ids, int64 [1, max_length], and the teacher's output for it by `state_layer`."""

    ids: torch.Tensor
    targets: Mapping[StateLayer | None, EncoderOutput]


@dataclass(frozen=True)
class LossConstants:
    """Inputs of losses that are the same in every step; on the training device."""

    empty: EmptyPromptTarget | None = None
    geometry: Geometry | None = None
    aligned: bool = True
    """The student's English token ids are the teacher's."""
    first: FirstEncoder | None = None
    """SDXL's first encoder, where a loss looks at the states of both."""
    launch_cost: int = 0
    """What the kernel launches of a pass cost, in positions of a text; see `join_passes`."""
    anchors: torch.Tensor | None = None
    """The teacher's unit vectors [n, dim] of pairs behind the run's last step, for `similarity`."""


class Task(nn.Module):
    """The module that is trained."""

    def __init__(self, student: StudentEncoder, losses: LossesConfig, constants: LossConstants | None = None) -> None:
        """Train `student`, and the decoder where a loss needs one."""
        super().__init__()
        self.student = student
        self._losses, self._translation = losses.enabled, losses.translation
        self._constants = constants or LossConstants()
        self.decoder: Decoder | None = losses.translation.build_decoder(student) if losses.translation else None

    def trainable(self) -> dict[str, nn.Parameter]:
        """The weights that train, by the names of a checkpoint."""
        decoder = trainable(self.decoder) if self.decoder else {}
        return {**trainable(self.student), **{DECODER + name: weight for name, weight in decoder.items()}}

    def first_shape(self) -> FirstShape | None:
        """The sizes of SDXL's first encoder and of the geometry, where a loss looks at the states of both."""
        first, geometry = self._constants.first, self._constants.geometry
        if first is None or geometry is None:
            return None
        maps = sum(each.numel() for layer in geometry.layers for each in (layer.query, layer.key, layer.value))
        return FirstShape(first.num_weights, first.width, maps)

    def passes(self, batch: TrainBatch) -> Passes:
        """Texts that the student encodes: Chinese, English, and on max-length steps the empty prompt as one more row.

        It would be a pass of its own, a third of the launches, on other steps. Where all Chinese is pooled alone, that
        which is decoded is encoded once more, in front of the empty prompt.
        """
        empty, vocabulary = self._constants.empty, self.student.vocabulary
        texts = [batch.student_zh_ids, batch.student_en_ids]
        if self._translation and batch.pooled_zh:
            texts.append(batch.student_zh_ids[batch.english_rows][self._translation.decoder.rows])
        if empty and batch.padded_to_max:
            texts.append(empty.ids)
        pooled_only = [batch.pooled_zh] + [False] * (len(texts) - 1)
        return join_passes(texts, vocabulary.pad_id, self._constants.launch_cost, pooled_only)

    def forward(self, batch: TrainBatch, targets: Targets, progress: float = 0.0) -> LossTerms:
        """Named loss terms, scalars; `progress` is the share of the run's steps that are done."""
        passes = self.passes(batch)
        outputs = [self.encoder(batch, pooled_only)(ids) for ids, pooled_only in passes.inputs]
        return self.terms(batch, passes.split(outputs), targets, progress)

    def encoder(self, batch: TrainBatch, pooled_only: bool) -> Callable[[torch.Tensor], EncoderOutput]:
        """The student, with the states that the losses of a step look at."""
        if pooled_only:
            assert isinstance(self.student, ClipStudent)
            return partial(encode_pooled, self.student.text)
        return self.student if batch.state_layer is None else partial(self.student, layer=batch.state_layer)

    def terms(
        self, batch: TrainBatch, outputs: Sequence[EncoderOutput], targets: Targets, progress: float
    ) -> LossTerms:
        """Named loss terms of the student's outputs for the texts of `passes`."""
        chinese, english, *others = outputs
        empty, first = self._constants.empty, self._constants.first
        decoded = others.pop(0) if self._translation and batch.pooled_zh else chinese.rows(batch.english_rows)
        empty_states: EmptyPromptStates | None = None
        if empty and others:
            empty_states = EmptyPromptStates(others[0], empty.targets[batch.state_layer])
        step = LossInput(
            chinese=chinese,
            target=targets.pairs,
            english=english,
            english_target=targets.english,
            padded_to_max=batch.padded_to_max,
            aligned=self._constants.aligned,
            empty=empty_states,
            geometry=self._constants.geometry,
            first=first.states(batch) if first is not None and batch.padded_to_max else None,
            anchors=self._constants.anchors,
            translation_losses=self._translation_losses(batch, decoded, english),
            progress=progress,
            draw=batch.draw,
        )
        # Cosines near one and contrastive logits need more digits than a half-precision product keeps.
        with torch.autocast(chinese.pooled.device.type, enabled=False):
            return scheduled_terms(self._losses, step)

    def _translation_losses(self, batch: TrainBatch, chinese: EncoderOutput, english: EncoderOutput) -> LossTerms:
        """The decoder's cross-entropy by direction, on its rows of the pairs with student English.

        `chinese` has all these pairs or, where the Chinese is pooled alone, the decoder's rows of them.
        """
        translation = self._translation
        if self.decoder is None or translation is None:
            return {}
        rows = translation.decoder.rows
        states = {"zh": chinese if batch.pooled_zh else chinese.rows(rows), "en": english.rows(rows)}
        ids: dict[Language, torch.Tensor] = {
            "zh": batch.student_zh_ids[batch.english_rows][rows],
            "en": batch.student_en_ids[rows],
        }
        return {
            f"{output}_from_{source}": self.decoder(self.student, states[source], ids[output], output)
            for output in ids
            for source in states
            if f"{output}_from_{source}" in translation.weights
        }


def total(terms: LossTerms) -> torch.Tensor:
    """The loss of a step: the sum of its terms."""
    return torch.stack(list(terms.values())).sum()


def backward(
    task: Task,
    batch: TrainBatch,
    targets: Targets,
    progress: float,
    tokens_at_once: int | None,
    autocast: Autocast,
    last_pass: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> LossTerms:
    """Terms of a step, with their gradients added to the weights of `task`, the last of them inside `last_pass`.

    At most `tokens_at_once` token positions (None: all) keep their activations at the same time.
    """
    passes = task.passes(batch)
    if tokens_at_once is None or passes.positions <= tokens_at_once:
        with autocast():
            terms: LossTerms = task(batch, targets, progress)
        with last_pass():
            total(terms).backward()  # type: ignore[no-untyped-call]
        return terms
    inputs = [(ids, task.encoder(batch, pooled_only)) for ids, pooled_only in passes.inputs]
    with torch.no_grad(), autocast():
        outputs = [chunked(encode, ids, tokens_at_once).detached_leaf() for ids, encode in inputs]
    with autocast():
        terms = task.terms(batch, passes.split(outputs), targets, progress)
    total(terms).backward()  # type: ignore[no-untyped-call]
    chunks = []
    for (ids, encode), output in zip(inputs, outputs, strict=True):
        start = 0
        for chunk in split_rows(ids, tokens_at_once):
            chunks.append((partial(encode, chunk), output, slice(start, start + len(chunk))))
            start += len(chunk)
    for number, (recompute, output, rows) in enumerate(chunks, 1):
        with autocast():
            recomputed = recompute()
        pairs = ((recomputed.hidden_states, output.hidden_states.grad), (recomputed.pooled, output.pooled.grad))
        # Where no loss looks at the pooled state, or a frozen tower has no gradient to pass on.
        used = [(new, gradient[rows]) for new, gradient in pairs if gradient is not None and new.requires_grad]
        with last_pass() if number == len(chunks) else nullcontext():
            torch.autograd.backward([new for new, _ in used], [gradient for _, gradient in used])
    return terms
