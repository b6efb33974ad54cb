"""What the trainer, the losses and the decoder ask of a student, whatever its kind."""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import CLIPTextModelWithProjection

from distill import text_tower
from distill.text_tower import EncoderOutput, StateLayer


class StudentEncoder(nn.Module):
    """A bilingual prompt encoder in training; each kind fills in every method."""

    def forward(self, ids: torch.Tensor) -> EncoderOutput:
        """States of `ids`, int64 [batch, slots], in the student's vocabulary."""
        raise NotImplementedError

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings [batch, slots, embedding width] of `ids`, without positions."""
        raise NotImplementedError

    def output_table(self) -> torch.Tensor:
        """The token embeddings as one table [vocabulary, embedding width], with gradients."""
        raise NotImplementedError

    def tied_rows(self) -> torch.Tensor:
        """Ids that use the row of another id, bool [vocabulary]."""
        raise NotImplementedError

    def to_clip(self) -> CLIPTextModelWithProjection:
        """The student as a plain transformers model on the CPU, float32, in evaluation mode."""
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Compute the layers' activations again in the backward pass instead of keeping them."""
        raise NotImplementedError

    def layers(self) -> Iterable[nn.Module]:
        """The layers of its transformer."""
        raise NotImplementedError

    @property
    def state_width(self) -> int:
        """Width of the states."""
        raise NotImplementedError

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence."""
        raise NotImplementedError


class ClipStudent(StudentEncoder):
    """A student that is a CLIP text tower."""

    def __init__(self, text: CLIPTextModelWithProjection, state_layer: StateLayer) -> None:
        """Train `text`, of which a UNet reads `states`."""
        super().__init__()
        self.text, self._state_layer = text, state_layer

    def forward(self, ids: torch.Tensor) -> EncoderOutput:
        """States of `ids`, int64 [batch, slots], in the student's vocabulary."""
        return text_tower.encode_ids(self.text, ids, self._state_layer)

    def enable_gradient_checkpointing(self) -> None:
        """Keep no activations of the layers."""
        self.text.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]

    def layers(self) -> Iterable[nn.Module]:
        """The layers of its transformer."""
        found: nn.ModuleList = self.text.text_model.encoder.layers
        return found

    @property
    def state_width(self) -> int:
        """Width of the states."""
        return int(self.text.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence."""
        return int(self.text.config.max_position_embeddings)
