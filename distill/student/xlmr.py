"""AltCLIP's and M-CLIP's student: a pre-trained multilingual encoder with a projection into the teacher's space."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModel, CLIPTextModelWithProjection
from transformers.utils.logging import disable_progress_bar

from data.cli import UserError, one_line
from distill.student.base import StudentEncoder
from distill.text_tower import EncoderOutput, check_local_folder, text_mask


@dataclass(frozen=True)
class XlmrConfig:
    """XLM-R or mBERT, with its own tokenizer."""

    model: str
    """Folder or Hub id: encoder in safetensors, and tokenizer."""
    pooling: Literal["first", "mean"] = "first"
    """Of the states of the text: the first one's, or their mean."""


class XlmrStudent(StudentEncoder):
    """A bidirectional encoder; its states are projected to the teacher's width, the pooled one to its projection."""

    def __init__(self, config: XlmrConfig, eos_id: int, width: int, projection: int, max_length: int) -> None:
        """Load the encoder; `width`, `projection` and `slots` are the teacher's."""
        super().__init__()
        self.encoder = load_encoder(config.model)
        hidden = self.encoder.config.hidden_size
        self._max_length, self._eos_id, self.pooling = max_length, eos_id, config.pooling
        self.to_states = nn.Linear(hidden, width)
        self.to_pooled = nn.Linear(hidden, projection, bias=False)

    def forward(self, ids: torch.Tensor) -> EncoderOutput:
        """States of `ids`, int64 [batch, slots]; padding is read by nobody, and reads the text."""
        mask = text_mask(ids, self._eos_id)
        hidden: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "first":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return EncoderOutput(self.to_states(hidden).float(), self.to_pooled(pooled).float(), mask)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings of `ids`."""
        embeddings: torch.Tensor = self.encoder.get_input_embeddings()(ids)
        return embeddings

    def output_table(self) -> torch.Tensor:
        """The embeddings by id."""
        table: torch.Tensor = self.encoder.get_input_embeddings().weight
        return table

    def tied_rows(self) -> torch.Tensor:
        """No id uses the row of another."""
        table = self.output_table()
        return torch.zeros(len(table), dtype=torch.bool, device=table.device)

    def enable_gradient_checkpointing(self) -> None:
        """Keep no activations of the layers."""
        self.encoder.gradient_checkpointing_enable({"use_reentrant": False})

    def layers(self) -> Iterable[nn.Module]:
        """The layers of its transformer."""
        layers: nn.ModuleList = self.encoder.encoder.layer
        return layers

    @property
    def state_width(self) -> int:
        """Width of the states."""
        return self.to_states.out_features

    @property
    def max_length(self) -> int:
        """Most tokens of a sequence."""
        return self._max_length

    def to_clip(self) -> CLIPTextModelWithProjection:
        """There is none."""
        raise UserError("student.xlmr: is no CLIP text tower, so nothing that loads one can take it")


def load_encoder(name: str) -> Any:  # noqa: ANN401  # whichever class the folder names
    """The encoder of a local folder or Hub id, float32, without its own pooler or dropout."""
    check_local_folder(name, "student.xlmr.model")
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        encoder = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            add_pooling_layer=False,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(
            f"student.xlmr.model: {name!r} holds no encoder in safetensors such as XLM-R's ({one_line(error)})"
        ) from error
    encoder.train()
    return encoder
