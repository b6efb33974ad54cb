"""One rank's training batch, prefetched; and the frozen teacher, which turns its English into targets."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F

from data.loader.batches import BatchDataset
from distill import text_tower
from distill.distributed import gather_rows, world_size
from distill.text_tower import EncoderOutput, Pretrained, StateLayer
from distill.train.passes import chunked, encode_pooled

SKIPPED_LAYER: StateLayer = "penultimate_normed"
"""The states that steps of `train.clip_skip` look at."""


@dataclass(frozen=True)
class TrainBatch:
    """One rank's share of a step, int64 [rows, length] each.

    `student_zh_ids` and `teacher_ids` hold every pair, `student_en_ids` and `teacher_en_ids` every n-th of them.
    """

    student_zh_ids: torch.Tensor
    student_en_ids: torch.Tensor
    teacher_ids: torch.Tensor
    teacher_en_ids: torch.Tensor | None
    """None where `teacher_ids` have all the positions that the losses use."""
    english_stride: int
    padded_to_max: bool
    draw: int
    """A random number of the step, for what a loss draws; the same on every rank."""
    state_layer: StateLayer | None = None
    """The states that the step's losses look at; None: the run's own."""
    pooled_zh: bool = False
    """The Chinese and the targets of the pairs are computed to their pooled states alone."""

    @property
    def english_rows(self) -> slice:
        """The pairs whose English the student encodes."""
        return slice(None, None, self.english_stride)

    @property
    def other_rows(self) -> torch.Tensor:
        """The other pairs, as a mask, bool [rows]."""
        return torch.arange(len(self.teacher_ids)) % self.english_stride != 0

    def pinned(self) -> "TrainBatch":
        """The batch in page-locked memory, from which a copy to a GPU does not block."""
        return self._mapped(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> "TrainBatch":
        """The batch on `device`."""
        return self._mapped(lambda ids: ids.to(device, non_blocking=True))

    def _mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "TrainBatch":
        return replace(
            self,
            student_zh_ids=function(self.student_zh_ids),
            student_en_ids=function(self.student_en_ids),
            teacher_ids=function(self.teacher_ids),
            teacher_en_ids=None if self.teacher_en_ids is None else function(self.teacher_en_ids),
        )


@dataclass(frozen=True)
class Targets:
    """The teacher's output for every pair, and for those whose English the student encodes."""

    pairs: EncoderOutput
    english: EncoderOutput


class BatchLoader:
    """The batches of one rank by step.

    On max-length steps only what a loss compares position by position has the maximum length: a causal tower's states
    of the text do not depend on what follows, so Chinese is padded dynamically unless a loss uses its padding.
    """

    def __init__(
        self,
        batches: BatchDataset,
        english_stride: int,
        zh_padding: bool,
        clip_skip: float = 0,
        pooled_zh: bool = False,
    ) -> None:
        """The student encodes the English of every `english_stride`-th pair; `zh_padding`: a loss uses that padding.

        `clip_skip` is the share of steps that look at the states before the last layer, drawn by the step's number.
        `pooled_zh`: no loss uses hidden states of the Chinese.
        """
        self._batches, self._english_stride, self._zh_padding = batches, english_stride, zh_padding
        self._clip_skip, self.pooled_zh = clip_skip, pooled_zh

    def __getitem__(self, step: int) -> TrainBatch:
        """The batch of `step`, counted from 0."""
        batch, stride = self._batches[step], self._english_stride
        english, full = batch.student_en[::stride], batch.fixed_length
        layer: StateLayer | None = SKIPPED_LAYER if batch.draw < self._clip_skip * 2**32 else None
        chinese, teacher, teacher_english = batch.student_zh, batch.teacher_en, None
        if full and not self._zh_padding:
            # Trimmed to the longest text of the global batch: every rank computes on the same shapes.
            chinese = batch.student_zh[:, : batch.zh_length].contiguous()
            teacher = batch.teacher_en[:, : batch.en_length].contiguous()
            teacher_english = batch.teacher_en[::stride]
        return TrainBatch(chinese, english, teacher, teacher_english, stride, full, batch.draw, layer, self.pooled_zh)


def anchor_vectors(
    loader: BatchLoader, teacher: "Teacher", first: int, count: int, window: int, tokens_at_once: int | None
) -> torch.Tensor:
    """The teacher's unit vectors [n, dim], n >= `count`, of all ranks' English from step `first` on; collective.

    Rows of a whole window of batches at least, for each batch of a window has one length of texts.
    """
    vectors, rows = list[torch.Tensor](), -(-count // (window * world_size()))
    while sum(map(len, vectors)) < count:
        ids = loader[first + len(vectors)].teacher_ids.to(teacher.device)
        ids = ids[:: max(1, len(ids) // rows)][:rows]
        vectors.append(gather_rows(F.normalize(chunked(teacher, ids, tokens_at_once).pooled, dim=-1)))
    return torch.cat(vectors)


class Prefetcher:
    """Loads the next two batches on a background thread, into page-locked memory where they go to a GPU."""

    def __init__(self, loader: BatchLoader, start: int, stop: int, pin: bool) -> None:
        """Begin with the batch of step `start`; the last is that of `stop - 1`."""
        self._loader, self._stop, self._pin = loader, stop, pin
        self._pool = ThreadPoolExecutor(1)
        self._ahead = deque(self._pool.submit(self._load, step) for step in range(start, min(start + 2, stop)))

    def _load(self, step: int) -> TrainBatch:
        batch = self._loader[step]
        return batch.pinned() if self._pin else batch

    def __getitem__(self, step: int) -> TrainBatch:
        """The batch of `step`; steps follow each other."""
        batch = self._ahead.popleft().result()
        if step + 2 < self._stop:
            self._ahead.append(self._pool.submit(self._load, step + 2))
        return batch

    def __enter__(self) -> "Prefetcher":
        """The loader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop loading."""
        self._pool.shutdown(cancel_futures=True)


class Teacher:
    """A frozen CLIP text tower in evaluation mode; not part of checkpoints."""

    def __init__(self, pretrained: Pretrained, device: torch.device) -> None:
        """Take over the model of `pretrained`, in place, and move it to `device`."""
        model = text_tower.optimize_for_device(pretrained.model, on_cpu=device.type == "cpu")
        text_tower.freeze(model)
        model.to(device=device)  # type: ignore[call-arg]
        self._model, self.device = model, device
        self._encode: Callable[..., EncoderOutput] = text_tower.encode_ids
        self._layer = pretrained.state_layer
        self.num_weights = sum(weight.numel() for weight in model.parameters())

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor, layer: StateLayer | None = None) -> EncoderOutput:
        """The output for `ids`, int64 [batch, length]; states of `layer` instead of the run's."""
        return self._encode(self._model, ids, layer or self._layer)

    def targets(self, batch: TrainBatch, tokens_at_once: int | None = None) -> Targets:
        """The student's targets for a batch, computed in chunks."""
        encode, ids, en_ids = partial(self, layer=batch.state_layer), batch.teacher_ids, batch.teacher_en_ids
        rows = batch.english_rows
        if not batch.pooled_zh:
            pairs = chunked(encode, ids, tokens_at_once)
            english = pairs.rows(rows) if en_ids is None else chunked(encode, en_ids, tokens_at_once)
            return Targets(pairs, english)
        english = chunked(encode, ids[rows] if en_ids is None else en_ids, tokens_at_once)
        pooled = english.pooled.new_empty(len(ids), english.pooled.shape[1])
        pooled[rows], others = english.pooled, batch.other_rows
        if others.any():
            pooled[others] = chunked(partial(encode_pooled, self._model), ids[others], tokens_at_once).pooled
        return Targets(EncoderOutput.of_pooled(pooled), english)

    def convert_to_bf16(self) -> None:
        """Convert the weights as autocast does, once; from then on every call is under autocast."""
        text_tower.convert_products(self._model)

    def compile(self) -> None:
        """Let torch compile the tower, for any length."""
        self._encode = torch.compile(self._encode, dynamic=True)
