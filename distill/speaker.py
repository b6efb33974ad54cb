"""A run's student together with its auxiliary decoder: what reads a sentence and says it."""

from collections.abc import Sequence
from pathlib import Path

import regex
import torch

from data.command import UserError
from distill import checkpoint
from distill.decoder import Decoder, Language
from distill.losses import Translation
from distill.states import States
from distill.student.saved import open_run

_SPACES = regex.compile(r"(?<=[\p{Han}\u3000-\u303f\uff00-\uffef]) +| +(?=[\p{Han}\u3000-\u303f\uff00-\uffef])")


class Speaker:
    """Student and decoder of a checkpoint, float32, in evaluation mode, on `device`."""

    def __init__(self, run: Path, step: int | None, device: torch.device) -> None:
        """Load the run's checkpoint of `step`, or its newest; UserError where it has no decoder."""
        opened = open_run(run, step)
        asked = opened.config.losses.translation
        if asked is None:
            raise UserError(f"--run {run}: has no decoder; train one with losses.translation")
        self.config, self.step, self.translation = opened.config, opened.step, asked
        self.student, self.tokenizer, self._device = opened.student, opened.tokenizer, device
        self._decoder = _decoder(asked, self.student.output_table().shape[1], opened.student.state_width, self.slots)
        weights = {checkpoint.DECODER + name: weight for name, weight in checkpoint.trainable(self._decoder).items()}
        every = {**checkpoint.trainable(self.student), **weights}
        checkpoint.load_weights(run / "checkpoints", self.step, every, to_use=True)
        self.student.to(device).eval()
        self._decoder.to(device).eval()

    @property
    def slots(self) -> int:
        """Most tokens of a sentence."""
        return self.student.slots

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> States:
        """The student's states of `texts`, padded to the longest and cut at the student's slots."""
        ids = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.slots, return_tensors="pt")
        states: States = self.student(ids["input_ids"].to(self._device))
        return states

    @torch.inference_mode()
    def say(self, states: States, language: Language) -> list[str]:
        """The likeliest sentence for each row of `states`; without the spaces that stand beside Chinese."""
        start, end = self.tokenizer("").input_ids[0], self.tokenizer("").input_ids[-1]
        said = self._decoder.generate(self.student, states, start, end, language, self.slots - 1)
        texts = self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return [_SPACES.sub("", text).strip() for text in texts]


def _decoder(asked: Translation, width: int, state_width: int, slots: int) -> Decoder:
    return Decoder(asked.decoder, width, state_width, slots)
