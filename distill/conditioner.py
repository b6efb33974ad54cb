"""What a UNet attends to: prompts as states, from a student's encoder or a pipeline's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from data.command import UserError, one_line
from distill.tower import any_tokenizer, check_local, refuse_broken_weights


@dataclass(frozen=True)
class Conditioner:
    """An encoder with its tokenizer."""

    encoder: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerBase

    @property
    def slots(self) -> int:
        """Tokens of a prompt, padding included."""
        return int(self.encoder.config.max_position_embeddings)

    @property
    def width(self) -> int:
        """Of the states."""
        return int(self.encoder.config.hidden_size)

    @torch.no_grad()
    def states(self, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
        """Last hidden states [texts, slots, width], padding included; a text that is too long is cut."""
        parts = []
        for start in range(0, len(texts), batch_size):
            some = list(texts[start : start + batch_size])
            ids = self.tokenizer(
                some, padding="max_length", max_length=self.slots, truncation=True, return_tensors="pt"
            ).input_ids
            parts.append(self.encoder(input_ids=ids.to(self.encoder.device)).last_hidden_state)
        return torch.cat(parts)


def load_conditioner(
    source: str, key: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Conditioner:
    """The `text_encoder/` of a student's folder or Hub id, with its tokenizer; `key` names the option in errors."""
    check_local(source, key)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of a second would hide the lines that matter
    try:
        encoder: Any
        info: dict[str, set[str]]
        encoder, info = CLIPTextModel.from_pretrained(  # type: ignore[misc]
            source, subfolder="text_encoder", dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # a damaged folder raises whatever its reader stumbles over
        raise UserError(
            f"{key}: {source!r} holds no text_encoder/ in safetensors, as an export has ({one_line(error)})"
        ) from error
    if info["missing_keys"]:
        raise UserError(f"{key}: {source!r}: its text_encoder/ has no weight {min(info['missing_keys'])}; export again")
    refuse_broken_weights(encoder, f"{key}: {source!r}")
    inner = Path(source) / "tokenizer"  # a Hub id has the same tokenizer at its root
    tokenizer = any_tokenizer(str(inner) if inner.is_dir() else source, key)
    if len(tokenizer) > encoder.config.vocab_size:
        known = f"{len(tokenizer)} tokens and its encoder {encoder.config.vocab_size}"
        raise UserError(f"{key}: {source!r}: its tokenizer has {known}; they do not belong together")
    return Conditioner(encoder.to(device).eval(), tokenizer)
