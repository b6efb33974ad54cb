"""The miniature CLIP's own tokenizer: byte-level BPE in CLIP's form, learned on the world's English."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
SLOTS = 77


def learn_tokenizer(texts: Iterable[str], size: int, folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer of at most `size` ids, saved to `folder`: 256 bytes, the same ending a word, merges, two marks.

    As in CLIP's own vocabulary every byte can stand inside and at the end of a word, so that any text can be said.
    """
    blank = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size - 258, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), end_of_word_suffix="</w>",
        min_frequency=20, show_progress=False,
    )  # fmt: skip
    blank.train_from_iterator(texts, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(blank.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=SLOTS)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer
