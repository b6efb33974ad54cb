"""Translate-then-teacher: Chinese captions through a translation model, for the row that a student must beat."""

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from data.command import UserError
from eval.towers import loaded, refuse_pickle

LONGEST = 160
"""Tokens of a translation; captions are far below, and a model that babbles is stopped."""


def translated(source: str, texts: Sequence[str], device: torch.device, batch_size: int = 32) -> list[str]:
    """`texts` in English by the sequence-to-sequence model of `source`, with that model's own search settings.

    A translation that came out empty is kept as a space: the caption still counts as a query, and fails.
    """
    refuse_pickle(source, "--translator")
    tokenizer = loaded(AutoTokenizer, source, "--translator")
    model = loaded(AutoModelForSeq2SeqLM, source, "--translator", use_safetensors=True).to(device).eval()
    if not model.config.is_encoder_decoder:
        raise UserError(f"--translator {source}: not a sequence-to-sequence model")
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found = [" "] * len(texts)
    for start in tqdm(range(0, len(order), batch_size), desc="translation", unit="batch", leave=False, disable=None):
        batch = order[start : start + batch_size]
        inputs = tokenizer([texts[row] for row in batch], padding=True, truncation=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            said = model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=LONGEST
            )
        for row, text in zip(batch, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True):
            found[row] = text.strip() or " "
    return found
