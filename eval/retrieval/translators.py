"""Chinese and English sentences through a translator: a run's auxiliary decoder, or a sequence-to-sequence model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import regex
import torch
from tqdm import tqdm
from transformers import AutoModelForSeq2SeqLM

from data.cli import UserError
from data.files import check_safetensors
from distill.loading import load_any_tokenizer, load_pretrained_model
from distill.student.base import Language
from distill.text_tower import EncoderOutput
from distill.train import checkpoint

MAX_NEW_TOKENS = 160
"""Tokens of a translation; captions are far below, and a model that repeats itself is stopped."""
_SPACES = regex.compile(r"(?<=[\p{Han}\u3000-\u303f\uff00-\uffef]) +| +(?=[\p{Han}\u3000-\u303f\uff00-\uffef])")


def translate_sorted(
    texts: Sequence[str], translate_batch: Callable[[list[str]], list[str]], batch_size: int
) -> list[str]:
    """`translate_batch` on batches of texts of like length; results in the order of `texts`."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    translations = [""] * len(texts)
    for start in tqdm(range(0, len(order), batch_size), desc="translation", unit="batch", leave=False, disable=None):
        rows = order[start : start + batch_size]
        for row, text in zip(rows, translate_batch([texts[row] for row in rows]), strict=True):
            translations[row] = text
    return translations


def translate_to_english(source: str, texts: Sequence[str], device: torch.device, batch_size: int = 32) -> list[str]:
    """`texts` in English by the sequence-to-sequence model `source`, with that model's own search settings.

    An empty translation becomes a space: the caption still counts as a query, and fails.
    """
    check_safetensors(source, "--translator")
    tokenizer = load_any_tokenizer(source, "--translator")
    model = load_pretrained_model(AutoModelForSeq2SeqLM, source, "--translator", "translation model").to(device).eval()
    if not model.config.is_encoder_decoder:
        raise UserError(f"--translator {source}: not a sequence-to-sequence model")

    def translate_batch(batch: list[str]) -> list[str]:
        inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            ids = model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=MAX_NEW_TOKENS
            )
        return [text.strip() or " " for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    return translate_sorted(texts, translate_batch, batch_size)


class DecoderTranslator:
    """Student and decoder of a checkpoint, float32, in evaluation mode, on `device`."""

    def __init__(self, run: Path, step: int | None, device: torch.device) -> None:
        """Load the run's checkpoint of `step`, or its newest; UserError where it has no decoder."""
        opened = checkpoint.open_run(run, step)
        self._decoder = checkpoint.open_decoder(run, opened).to(device)
        assert opened.config.losses.translation is not None
        self.config, self.step, self.translation = opened.config, opened.step, opened.config.losses.translation
        self.student, self.tokenizer, self._device = opened.student.to(device).eval(), opened.tokenizer, device
        self.files = [run / "config.yaml", run / "checkpoints" / f"step-{self.step:08d}" / "weights.safetensors"]

    @property
    def max_length(self) -> int:
        """Most tokens of a sentence."""
        return self.student.vocabulary.max_length

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> EncoderOutput:
        """The student's states of `texts`, padded to the longest and cut at `max_length`."""
        ids = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        states: EncoderOutput = self.student(ids["input_ids"].to(self._device))
        return states

    @torch.inference_mode()
    def generate(self, states: EncoderOutput, language: Language) -> list[str]:
        """A sentence for each row of `states` by greedy search, without the spaces beside Chinese characters."""
        start = self.tokenizer("").input_ids[0]
        generated = self._decoder.generate(self.student, states, start, language, self.max_length - 1)
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [_SPACES.sub("", text).strip() for text in texts]

    def translate(self, texts: Sequence[str], language: Language, batch_size: int) -> list[str]:
        """`texts` in `language`."""
        return translate_sorted(texts, lambda batch: self.generate(self.encode(batch), language), batch_size)
