"""AltCLIP's and M-CLIP's student: a pre-trained multilingual encoder with a projection into the teacher's space."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from data.loader.batches import Vocabulary
from data.loader.token_store import DomainTokens
from distill.loading import load_pretrained_model
from distill.student.base import StudentEncoder, StudentKind, vocabulary_of
from distill.student.tokenizer import load_fast_tokenizer
from distill.text_tower import EncoderOutput, Pretrained, text_mask

Pooling = Literal["first", "mean"]


class XlmrStudent(StudentEncoder):
    """A bidirectional encoder; its states are projected to the teacher's width, the pooled one to its projection."""

    def __init__(self, model: str, pooling: Pooling, vocabulary: Vocabulary, width: int, projection_dim: int) -> None:
        """Load the encoder of the folder or Hub id `model`; `width` and `projection_dim` are the teacher's."""
        super().__init__(vocabulary, width)
        self.encoder, self.pooling = load_encoder(model), pooling
        hidden = self.encoder.config.hidden_size
        self.to_states = nn.Linear(hidden, width)
        self.to_pooled = nn.Linear(hidden, projection_dim, bias=False)

    @property
    def embedding(self) -> nn.Module:
        """The token embedding."""
        embedding: nn.Module = self.encoder.get_input_embeddings()
        return embedding

    def forward(self, ids: torch.Tensor) -> EncoderOutput:
        """Output for `ids`, int64 [batch, length]; padding positions are masked as keys."""
        mask = text_mask(ids, self.vocabulary.eos_id)
        hidden: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "first":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return EncoderOutput(self.to_states(hidden).float(), self.to_pooled(pooled).float(), mask)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the layers' activations in the backward pass."""
        self.encoder.gradient_checkpointing_enable({"use_reentrant": False})

    def layers(self) -> Iterable[nn.Module]:
        """The layers of its transformer."""
        layers: nn.ModuleList = self.encoder.encoder.layer
        return layers

    def to_clip(self) -> CLIPTextModelWithProjection:
        """Raises UserError."""
        raise UserError("student.xlmr: is no CLIP text tower, so nothing that loads one can take it")


@dataclass(frozen=True)
class XlmrConfig(StudentKind):
    """XLM-R or mBERT, with its own tokenizer."""

    model: str
    """Folder or Hub id: encoder in safetensors, and tokenizer."""
    pooling: Pooling = "first"
    """Of the states of the text: the first one's, or their mean."""

    def check(self) -> None:
        """Load tokenizer and encoder."""
        load_fast_tokenizer(self.model, "student.xlmr.model")
        load_encoder(self.model)

    def make_tokenizer(self, teacher: Pretrained, corpus: Path) -> PreTrainedTokenizerFast:
        """The encoder's own tokenizer."""
        return load_fast_tokenizer(self.model, "student.xlmr.model")

    def build(
        self,
        teacher: Pretrained,
        tokenizer: PreTrainedTokenizerFast,
        pairs: Mapping[str, DomainTokens] | None,
        on_cpu: bool,
    ) -> XlmrStudent:
        """The pre-trained encoder under new projections."""
        vocabulary = vocabulary_of(tokenizer, teacher.max_length)
        projection_dim = teacher.model.text_projection.out_features
        return XlmrStudent(self.model, self.pooling, vocabulary, teacher.width, projection_dim)


def load_encoder(name: str) -> Any:  # noqa: ANN401  # the class that the folder names
    """The encoder of a local folder or Hub id, float32, in train mode, without its own pooler or dropout."""
    return load_pretrained_model(
        AutoModel, name, "student.xlmr.model", "encoder", dtype=torch.float32, add_pooling_layer=False,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ).train()  # fmt: skip
