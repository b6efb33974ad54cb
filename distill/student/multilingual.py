"""SkyCLIP's student: the teacher's causal transformer under a multilingual vocabulary, with English to learn too."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from data.loader.token_store import DomainTokens
from distill.student.base import ClipStudent, StudentKind, vocabulary_of
from distill.student.tokenizer import load_fast_tokenizer, token_texts
from distill.student.word_alignment import first_rows
from distill.text_tower import Pretrained

_CHINESE = re.compile(r"[\u2e80-\u9fff]")
_LAYER = re.compile(r"(?<=encoder\.layers\.)\d+")


@dataclass(frozen=True)
class MultilingualConfig(StudentKind):
    """A CLIP-shaped causal transformer with another vocabulary; its layers start as the teacher's."""

    tokenizer: str
    """Folder or Hub id of a fast tokenizer: mBERT's WordPiece, or what `python -m data.vocab` wrote."""
    layers: int | None = None
    """Layers, taken evenly from the teacher's; null: as many as it has."""
    first_rows: Literal["teacher", "random"] = "teacher"
    """teacher: a token starts at the teacher's rows of the same text, a Chinese word at those of aligned English."""

    def __post_init__(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"student.multilingual.layers: {self.layers} is below 1")

    def check(self) -> None:
        """Load the tokenizer; UserError where its end-of-text id has a special meaning to transformers."""
        tokenizer = load_fast_tokenizer(self.tokenizer, "student.multilingual.tokenizer")
        if tokenizer.eos_token_id == 2:
            raise UserError(
                f"student.multilingual.tokenizer: {self.tokenizer!r} ends texts with id 2, which transformers reads as "
                "'pool at the largest id'; take another tokenizer, or train one with python -m data.vocab"
            )

    def make_tokenizer(self, teacher: Pretrained, corpus: Path) -> PreTrainedTokenizerFast:
        """The tokenizer that the config names."""
        return load_fast_tokenizer(self.tokenizer, "student.multilingual.tokenizer")

    def build(
        self,
        teacher: Pretrained,
        tokenizer: PreTrainedTokenizerFast,
        pairs: Mapping[str, DomainTokens] | None,
        on_cpu: bool,
    ) -> ClipStudent:
        """The student at step 0: every weight of the teacher's that fits, and initial rows for the vocabulary."""
        model = init_multilingual(self, teacher, tokenizer, pairs)
        return ClipStudent(model, teacher.state_layer, vocabulary_of(tokenizer, teacher.max_length), on_cpu)


def init_multilingual(
    config: MultilingualConfig,
    teacher: Pretrained,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Mapping[str, DomainTokens] | None,
) -> CLIPTextModelWithProjection:
    """The tower at step 0."""
    shape = copy.deepcopy(teacher.model.config)
    shape.vocab_size, shape.num_hidden_layers = len(tokenizer), config.layers or shape.num_hidden_layers
    shape.bos_token_id, shape.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    shape.pad_token_id = tokenizer.pad_token_id
    model = CLIPTextModelWithProjection(shape)
    weights = teacher.model.state_dict()
    sources = teacher_layer_indices(teacher.model.config.num_hidden_layers, shape.num_hidden_layers)
    state = {name: weights[_LAYER.sub(lambda m: str(sources[int(m[0])]), name)] for name in model.state_dict()}
    embedding = "text_model.embeddings.token_embedding.weight"
    old = weights[embedding]
    if pairs is None:
        state[embedding] = old.new_zeros(len(tokenizer), old.shape[1])
    else:
        known = config.first_rows == "teacher"
        state[embedding] = new = first_rows(pairs if known else {}, np.arange(len(tokenizer)), old, start=0)
        # A piece that is not Chinese means what the teacher reads in its letters.
        texts = {i: text for i, text in token_texts(tokenizer).items() if known and not _CHINESE.search(text)}
        for index, row in rows_of_same_text(texts, teacher.tokenizer, old).items():
            new[index] = row
    model.load_state_dict(state)
    return model


def teacher_layer_indices(num_teacher_layers: int, num_layers: int) -> list[int]:
    """The teacher's layers that start the student's: evenly spaced, the first and the last among them."""
    if num_layers == 1:
        return [num_teacher_layers - 1]
    return [round(layer * (num_teacher_layers - 1) / (num_layers - 1)) for layer in range(num_layers)]


def rows_of_same_text(
    texts: Mapping[int, str], teacher_tokenizer: PreTrainedTokenizerFast, embedding: torch.Tensor
) -> dict[int, torch.Tensor]:
    """The mean of the teacher's rows [width] of each text, by its key; texts without a token are left out.

    `embedding` [vocabulary, width] is the teacher's.
    """
    ids = teacher_tokenizer([*texts.values()], add_special_tokens=False)["input_ids"] if texts else []
    return {token: embedding[row].mean(dim=0) for token, row in zip(texts, ids, strict=True) if row}
