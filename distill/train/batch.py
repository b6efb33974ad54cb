"""What the towers read in a step: of a batch, the sentences and slots that a loss looks at.

Readings drawn ahead of their step.

The frozen teacher: outside `prepare`, outside checkpoints, always in evaluation mode.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from data.loader.batches import BatchDataset, TokenBatch, Vocabulary
from distill import text_tower
from distill.text_tower import EncoderOutput, Pretrained, text_mask


@dataclass(frozen=True)
class TrainBatch:
    """One rank's share of a step, int64 [rows, slots] each.

    `chinese` and `teacher` hold every pair, `english` and `teacher_english` every n-th of them.
    """

    student_zh_ids: torch.Tensor
    student_en_ids: torch.Tensor
    teacher_ids: torch.Tensor
    teacher_en_ids: torch.Tensor | None
    """None where the states of `teacher` have all the slots that the losses look at."""
    english_stride: int
    padded_to_max: bool

    @property
    def english_rows(self) -> slice:
        """Which pairs' English is read."""
        return slice(None, None, self.english_stride)

    def to(self, device: torch.device) -> "TrainBatch":
        """The same on `device`."""
        move = partial(torch.Tensor.to, device=device, non_blocking=True)
        teacher_en_ids = None if self.teacher_en_ids is None else move(self.teacher_en_ids)
        return TrainBatch(
            move(self.student_zh_ids),
            move(self.student_en_ids),
            move(self.teacher_ids),
            teacher_en_ids,
            self.english_stride,
            self.padded_to_max,
        )

    def chunks(self, num_chunks: int) -> list["TrainBatch"]:
        """`count` equal parts, in order; each a multiple of `every` pairs."""
        chinese, english, teacher = (
            view.chunk(num_chunks) for view in (self.student_zh_ids, self.student_en_ids, self.teacher_ids)
        )
        teacher_en = [None] * num_chunks if self.teacher_en_ids is None else self.teacher_en_ids.chunk(num_chunks)
        return [
            TrainBatch(
                chinese[part], english[part], teacher[part], teacher_en[part], self.english_stride, self.padded_to_max
            )
            for part in range(num_chunks)
        ]


@dataclass(frozen=True)
class Targets:
    """The teacher's states of every pair, and of those whose English the student reads."""

    pairs: EncoderOutput
    english: EncoderOutput


class BatchLoader:
    """The readings of one rank by step.

    On full steps only what a loss compares slot by slot has all slots: a causal tower's states of the text do not
    depend on what follows, so without a loss that looks at Chinese padding the Chinese is read tight.
    """

    def __init__(
        self,
        batches: BatchDataset,
        teacher: Vocabulary,
        student: Vocabulary,
        english_stride: int,
        zh_padding: bool,
    ) -> None:
        """The student encodes the English of every `english_stride`-th pair; `zh_padding`: a loss uses that padding."""
        self._batches, self._english_stride, self._zh_padding = batches, english_stride, zh_padding
        self._teacher_eos_id, self._student_eos_id = teacher.eos_id, student.eos_id

    def __getitem__(self, step: int) -> TrainBatch:
        """The reading of `step`, counted from 0."""
        batch: TokenBatch = self._batches[step]
        english = batch.student_en[:: self._english_stride]
        if not batch.fixed_length or self._zh_padding:
            return TrainBatch(
                batch.student_zh, english, batch.teacher_en, None, self._english_stride, batch.fixed_length
            )
        chinese, teacher = (
            _trimmed(batch.student_zh, self._student_eos_id),
            _trimmed(batch.teacher_en, self._teacher_eos_id),
        )
        return TrainBatch(
            chinese,
            english,
            teacher,
            batch.teacher_en[:: self._english_stride],
            self._english_stride,
            batch.fixed_length,
        )


def _trimmed(ids: torch.Tensor, eos_id: int) -> torch.Tensor:
    longest = int(text_mask(ids, eos_id).sum(dim=1).max())
    return ids[:, :longest].contiguous()


class Prefetcher:
    """Draws the next reading on a thread while this one trains."""

    def __init__(self, loader: BatchLoader, start: int, stop: int) -> None:
        """Start on the batch of step `start`; `stop` is the first step that is never asked for."""
        self._loader, self._stop = loader, stop
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(loader.__getitem__, start)

    def __getitem__(self, step: int) -> TrainBatch:
        """The reading of `step`; steps are asked for one after the other."""
        batch = self._next.result()
        if step + 1 < self._stop:
            self._next = self._pool.submit(self._loader.__getitem__, step + 1)
        return batch

    def __enter__(self) -> "Prefetcher":
        """The readings themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._pool.shutdown(cancel_futures=True)


class Teacher:
    """A frozen CLIP text tower that turns English ids into targets."""

    def __init__(self, pretrained: Pretrained, device: torch.device) -> None:
        """Take over the model of `pretrained`; it is changed and moved."""
        model = text_tower.optimize_for_device(pretrained.model, on_cpu=device.type == "cpu")
        model.eval()  # type: ignore[no-untyped-call]
        model.requires_grad_(False).to(device=device)  # type: ignore[call-arg]
        self._model, self._state_layer, self.device = model, pretrained.state_layer, device

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> EncoderOutput:
        """Targets of `ids`, int64 [batch, slots]."""
        return text_tower.encode_ids(self._model, ids, self._state_layer)

    def targets(self, batch: TrainBatch) -> Targets:
        """What the student is to say of a reading."""
        pairs = self(batch.teacher_ids)
        en_ids = batch.teacher_en_ids
        return Targets(pairs, pairs.rows(batch.english_rows) if en_ids is None else self(en_ids))

    def compile(self) -> None:
        """Let torch compile the tower, for any number of slots."""
        self._model.compile(dynamic=True)
