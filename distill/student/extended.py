"""The default student: the teacher's own transformer and tokenizer, plus rows for Chinese tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModelWithProjection

from distill import text_tower
from distill.student.base import ClipStudent
from distill.student.chinese_bpe import VocabularyConfig
from distill.text_tower import Pretrained

Freeze = Literal["none", "embeddings", "transformer"]


@dataclass(frozen=True)
class ExtendedConfig:
    """The teacher's transformer with Chinese tokens appended to its vocabulary."""

    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    freeze: Freeze = "embeddings"
    """embeddings: the teacher's own rows stay; transformer: only new rows train, and English is bit-exact."""


class SplitEmbedding(nn.Module):
    """A token embedding in two tables, the teacher's and the new one, where several ids may share a row."""

    def __init__(self, teacher: torch.Tensor, new: torch.Tensor, row_of_id: torch.Tensor) -> None:
        """`teacher` [old, width], `new` [rows, width]; `row_of_id` [vocabulary] counts through both tables."""
        super().__init__()
        self.teacher = nn.Parameter(teacher.clone())
        self.new = nn.Parameter(new.clone())
        self.register_buffer("row_of_id", row_of_id, persistent=False)
        self.row_of_id: torch.Tensor

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [batch, slots, width] of `ids` [batch, slots]."""
        row, old = self.row_of_id[ids], len(self.teacher)
        known = F.embedding(row.clamp(max=old - 1), self.teacher)
        return torch.where((row < old)[..., None], known, F.embedding((row - old).clamp(min=0), self.new))

    def table(self) -> torch.Tensor:
        """One stock table [vocabulary, width], shared rows written out."""
        return self.shared_table().detach()

    def shared_table(self) -> torch.Tensor:
        """The same with gradients."""
        return F.embedding(self.row_of_id, torch.cat([self.teacher, self.new]))


class ExtendedStudent(ClipStudent):
    """A CLIP text tower whose vocabulary has grown; before training it reads English exactly as its teacher does."""

    def __init__(
        self,
        teacher: Pretrained,
        vocabulary: int,
        tied_ids: Mapping[int, int],
        init_embeddings: Mapping[int, torch.Tensor],
        freeze: Freeze,
        on_cpu: bool,
    ) -> None:
        """Start as `teacher`; `twins` and `first_rows` are keyed by token id."""
        super().__init__(text_tower.optimize_for_device(teacher.copy_model(), on_cpu), teacher.state_layer)
        old = self.text.text_model.embeddings.token_embedding.weight.detach()
        owners = [token for token in range(len(old), vocabulary) if token not in tied_ids]
        row_of_id = torch.arange(vocabulary)
        row_of_id[owners] = torch.arange(len(old), len(old) + len(owners))
        for token, twin in tied_ids.items():
            row_of_id[token] = row_of_id[twin]
        new = old.mean(dim=0).repeat(len(owners), 1)
        for row, token in enumerate(owners):
            if token in init_embeddings:
                new[row] = init_embeddings[token]
        self.text.text_model.embeddings.token_embedding = SplitEmbedding(old, new, row_of_id)
        is_twin = torch.zeros(vocabulary, dtype=torch.bool)
        is_twin[list(tied_ids)] = True
        self.register_buffer("_twins", is_twin, persistent=False)
        self._twins: torch.Tensor
        self._freeze(freeze)

    @property
    def embedding(self) -> SplitEmbedding:
        """The token embedding."""
        table = self.text.text_model.embeddings.token_embedding
        assert isinstance(table, SplitEmbedding)
        return table

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings of `ids`."""
        embeddings: torch.Tensor = self.embedding(ids)
        return embeddings

    def output_table(self) -> torch.Tensor:
        """The embeddings by id, with gradients."""
        return self.embedding.shared_table()

    def tied_rows(self) -> torch.Tensor:
        """Ids that use the row of another id."""
        return self._twins

    def to_clip(self) -> CLIPTextModelWithProjection:
        """The student as a plain transformers model on the CPU, float32, in evaluation mode."""
        table = self.embedding.table().cpu()
        config = type(self.text.config).from_dict({**self.text.config.to_dict(), "vocab_size": len(table)})
        model = CLIPTextModelWithProjection(config)
        weights = {
            name: tensor.cpu() for name, tensor in self.text.state_dict().items() if ".token_embedding." not in name
        }
        model.load_state_dict({**weights, "text_model.embeddings.token_embedding.weight": table})
        model.eval()  # type: ignore[no-untyped-call]
        return model

    def _freeze(self, freeze: Freeze) -> None:
        if freeze == "transformer":
            self.text.requires_grad_(False)
            self.embedding.new.requires_grad_(True)
        self.embedding.teacher.requires_grad_(freeze == "none")
