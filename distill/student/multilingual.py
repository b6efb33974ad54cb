"""SkyCLIP's student: the teacher's causal transformer under a multilingual vocabulary."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill import text_tower
from distill.student.base import ClipStudent
from distill.student.init_embeddings import embeddings_from_translations
from distill.student.tokenizer import token_texts
from distill.text_tower import StateLayer


@dataclass(frozen=True)
class MultilingualConfig:
    """A CLIP-shaped causal transformer with another vocabulary; its layers start as the teacher's."""

    tokenizer: str
    """Folder or Hub id of a fast tokenizer: mBERT's WordPiece, or what `python -m data.vocab` wrote."""
    layers: int | None = None
    """Layers, taken evenly from the teacher's; null: as many as it has."""
    first_rows: Literal["teacher", "random"] = "teacher"
    """teacher: embeddings start at the teacher's of the same text, Chinese words at those of their glosses."""

    def __post_init__(self) -> None:
        """Refuse a transformer without layers."""
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"student.multilingual.layers: {self.layers} is below 1")


class MultilingualStudent(ClipStudent):
    """A stock CLIP text tower; its English has to be learned as its Chinese has."""

    def __init__(self, model: CLIPTextModelWithProjection, state_layer: StateLayer, on_cpu: bool) -> None:
        """Train `model`, whose vocabulary is the student's; it is changed."""
        super().__init__(text_tower.optimize_for_device(model, on_cpu), state_layer)

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding."""
        table = self.text.text_model.embeddings.token_embedding
        assert isinstance(table, nn.Embedding)
        return table

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings of `ids`."""
        embeddings: torch.Tensor = self.embedding(ids)
        return embeddings

    def output_table(self) -> torch.Tensor:
        """The embeddings by id."""
        return self.embedding.weight

    def tied_rows(self) -> torch.Tensor:
        """No id uses the row of another."""
        return torch.zeros(len(self.embedding.weight), dtype=torch.bool, device=self.embedding.weight.device)

    def to_clip(self) -> CLIPTextModelWithProjection:
        """The student as a plain transformers model on the CPU."""
        model = CLIPTextModelWithProjection(self.text.config)
        model.load_state_dict({name: tensor.cpu() for name, tensor in self.text.state_dict().items()})
        model.eval()  # type: ignore[no-untyped-call]
        return model


def init_multilingual(
    config: MultilingualConfig,
    teacher: CLIPTextModelWithProjection,
    teacher_tokenizer: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    translations: Mapping[str, list[str]],
) -> CLIPTextModelWithProjection:
    """The tower at step 0: every weight of the teacher's that fits, and first rows for the vocabulary."""
    shape = copy.deepcopy(teacher.config)
    shape.vocab_size, shape.num_hidden_layers = len(tokenizer), config.layers or shape.num_hidden_layers
    shape.bos_token_id, shape.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    shape.pad_token_id = tokenizer.pad_token_id
    model = CLIPTextModelWithProjection(shape)
    old = teacher.text_model.embeddings.token_embedding.weight.detach()
    weights = teacher.state_dict()
    layer_indices = teacher_layer_indices(teacher.config.num_hidden_layers, shape.num_hidden_layers)
    student_state: dict[str, torch.Tensor] = {}
    for name in model.state_dict():
        head, mark, rest = name.partition("encoder.layers.")
        layer, _, part = rest.partition(".")
        student_state[name] = weights[f"{head}{mark}{layer_indices[int(layer)]}.{part}" if mark else name]
    new = old.mean(dim=0) + torch.randn(len(tokenizer), old.shape[1]) * old.std(dim=0)
    if config.first_rows == "teacher":
        texts = token_texts(tokenizer)
        # A piece without a gloss that is no Chinese means what the teacher reads in its letters.
        letters = {text: [text] for text in texts.values() if not any("\u2e80" <= c <= "\u9fff" for c in text)}
        for index, row in embeddings_from_translations(
            texts, {**letters, **translations}, teacher_tokenizer, old
        ).items():
            new[index] = row
    student_state["text_model.embeddings.token_embedding.weight"] = new
    model.load_state_dict(student_state)
    return model


def teacher_layer_indices(num_teacher_layers: int, num_layers: int) -> list[int]:
    """Which of a teacher's `of` layers start the student's `wanted`: evenly, the first and the last among them."""
    if num_layers == 1:
        return [num_teacher_layers - 1]
    return [round(layer * (num_teacher_layers - 1) / (num_layers - 1)) for layer in range(num_layers)]
