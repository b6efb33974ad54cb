"""Interfaces of a student: its kind (what a config names) and its encoder (what is trained)."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.files import atomic_folder
from data.loader.batches import Vocabulary
from data.loader.token_store import DomainTokens
from distill import text_tower
from distill.student.tokenizer import load_fast_tokenizer
from distill.text_tower import EncoderOutput, Pretrained, StateLayer


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, max_length: int) -> Vocabulary:
    """The special ids of `tokenizer` with the maximum length of its tower."""
    pad_id, eos_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    assert isinstance(pad_id, int)
    assert isinstance(eos_id, int)
    return Vocabulary(pad_id, eos_id, max_length)


Language = Literal["zh", "en"]


@dataclass(frozen=True)
class OutputRows:
    """The rows of an embedding among which a decoder chooses the tokens of one language.

    table: [rows, width], with gradients; ids: [rows], a token of each; of_id: [vocabulary], the row of each token, -1
    for those of no row here.
    """

    table: torch.Tensor
    ids: torch.Tensor
    of_id: torch.Tensor


class StudentEncoder(nn.Module):
    """A bilingual prompt encoder in training."""

    def __init__(self, vocabulary: Vocabulary, state_width: int) -> None:
        """`state_width` is the width of its hidden states."""
        super().__init__()
        self.vocabulary, self.state_width = vocabulary, state_width

    def forward(self, ids: torch.Tensor) -> EncoderOutput:
        """Output for `ids`, int64 [batch, length], in the student's vocabulary."""
        raise NotImplementedError

    @property
    def embedding(self) -> nn.Module:
        """The token embedding, whose `weight` is one table [vocabulary, embedding width]."""
        raise NotImplementedError

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings [batch, length, embedding width] of `ids`, without positions."""
        embeddings: torch.Tensor = self.embedding(ids)
        return embeddings

    def output_table(self) -> torch.Tensor:
        """The token embeddings as one table [vocabulary, embedding width], with gradients."""
        table = self.embedding.weight
        assert isinstance(table, torch.Tensor)
        return table

    def output_rows(self, language: Language) -> OutputRows:
        """The rows of the tokens of `language`; all by default."""
        table = self.output_table()
        every = torch.arange(len(table), device=table.device)
        return OutputRows(table, every, every)

    def to_clip(self) -> CLIPTextModelWithProjection:
        """The student as a plain transformers model on the CPU, float32, in evaluation mode."""
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the layers' activations in the backward pass instead of keeping them; only in train mode."""
        raise NotImplementedError

    def layers(self) -> Iterable[nn.Module]:
        """The layers of its transformer, the units of FSDP."""
        raise NotImplementedError


_EMBEDDING = ".token_embedding."


class ClipStudent(StudentEncoder):
    """A student that is a CLIP text tower."""

    def __init__(
        self, text: CLIPTextModelWithProjection, state_layer: StateLayer, vocabulary: Vocabulary, on_cpu: bool
    ) -> None:
        """Train `text`, in place; a UNet reads its states of `state_layer`."""
        super().__init__(vocabulary, int(text.config.hidden_size))
        self.text, self._state_layer = text_tower.optimize_for_device(text, on_cpu), state_layer

    def forward(self, ids: torch.Tensor, layer: StateLayer | None = None) -> EncoderOutput:
        """Output for `ids`, int64 [batch, length]; states of `layer` instead of the run's."""
        return text_tower.encode_ids(self.text, ids, layer or self._state_layer)

    @property
    def embedding(self) -> nn.Module:
        """The token embedding."""
        embedding: nn.Module = self.text.text_model.embeddings.token_embedding
        return embedding

    def to_clip(self) -> CLIPTextModelWithProjection:
        """The student as a plain transformers model on the CPU."""
        table = self.output_table().detach().cpu()
        config = type(self.text.config).from_dict({**self.text.config.to_dict(), "vocab_size": len(table)})
        model = CLIPTextModelWithProjection(config)
        weights = {name: tensor.cpu() for name, tensor in self.text.state_dict().items() if _EMBEDDING not in name}
        model.load_state_dict({**weights, f"text_model.embeddings{_EMBEDDING}weight": table})
        model.eval()  # type: ignore[no-untyped-call]
        return model

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the layers' activations in the backward pass."""
        self.text.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]

    def layers(self) -> Iterable[nn.Module]:
        """The layers of its transformer."""
        layers: nn.ModuleList = self.text.text_model.encoder.layers
        return layers


class StudentKind(ABC):
    """A kind of student; its subclasses are the config dataclasses."""

    shares_english_tokens: ClassVar[bool] = False
    """English token ids equal the teacher's, so that positions compare one by one on every step."""

    @abstractmethod
    def check(self) -> None:
        """Raise UserError for a tokenizer or encoder that does not exist, before anything is written."""

    @abstractmethod
    def make_tokenizer(self, teacher: Pretrained, corpus: Path) -> PreTrainedTokenizerFast:
        """Train the tokenizer on the corpus, or load the one that the config names."""

    @abstractmethod
    def build(
        self,
        teacher: Pretrained,
        tokenizer: PreTrainedTokenizerFast,
        pairs: Mapping[str, DomainTokens] | None,
        on_cpu: bool,
    ) -> StudentEncoder:
        """The student at step 0; training `pairs` by domain initialise embeddings, None where others replace them."""

    def build_tokenizer(self, teacher: Pretrained, corpus: Path, folder: Path) -> None:
        """Write the student's tokenizer, with the teacher's maximum length, as `folder`, atomically."""
        tokenizer = self.make_tokenizer(teacher, corpus)
        tokenizer.model_max_length = teacher.max_length
        with atomic_folder(folder) as partial:
            tokenizer.save_pretrained(partial)

    def load_tokenizer(self, folder: Path, option: str) -> PreTrainedTokenizerFast:
        """The tokenizer that `build_tokenizer` wrote; `option` names the folder in errors."""
        return load_fast_tokenizer(str(folder.absolute()), option)
