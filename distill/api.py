"""The student in three lines of Python: as an encoder of captions and prompts, or inside a diffusers pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from data.cli import UserError
from distill.student.tokenizer import load_fast_tokenizer
from distill.text_tower import length_sorted_batches, load_any_tokenizer, load_pretrained_model, load_tower


@dataclass(frozen=True)
class TextEncoder:
    """A CLIP text encoder with its tokenizer."""

    model: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerBase

    @property
    def max_length(self) -> int:
        """Most tokens of a text, start and end included."""
        return int(self.model.config.max_position_embeddings)

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        return int(self.model.config.hidden_size)

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return int(self.model.config.projection_dim or 0)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Features [texts, feature_dim] of prompts or captions, float32 and of length 1, in the order of `texts`.

        They are comparable by dot product with the image features of the teacher's CLIP. A text of more than
        `max_length` tokens is cut, the end-of-text kept. Needs a model with projection, as `load_student` returns.
        """
        rows = _as_list(texts)
        ids = self.tokenizer(rows, truncation=True, max_length=self.max_length).input_ids if rows else []
        features = np.zeros((len(rows), self.feature_dim), dtype=np.float32)
        for batch in length_sorted_batches(ids, int(self.tokenizer.eos_token_id), batch_size):
            text_embeds = self.model(input_ids=torch.from_numpy(batch.ids).to(self.model.device)).text_embeds
            features[batch.rows] = F.normalize(text_embeds.float(), dim=-1).cpu().numpy()
        return features

    @torch.no_grad()
    def states(self, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
        """Last hidden states [texts, max_length, hidden_size], padding included, for the UNet of Stable Diffusion 1.x.

        That of 2.x reads the states of `text_encoder/`, which has a layer less: `load_text_encoder`.
        """
        rows, device = _as_list(texts), self.model.device
        batches = [torch.zeros(0, self.max_length, self.hidden_size, dtype=self.model.dtype, device=device)]
        for start in range(0, len(rows), batch_size):
            ids = self.tokenizer(
                rows[start : start + batch_size], padding="max_length", max_length=self.max_length, truncation=True,
                return_tensors="pt",
            ).input_ids  # fmt: skip
            batches.append(self.model(input_ids=ids.to(device)).last_hidden_state)
        return torch.cat(batches)


def _as_list(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):  # a sequence of strings too, but nobody means its letters
        raise TypeError(f"{texts!r} is one text where a list is needed; put the one text into a list")
    return list(texts)


def load_student(source: str | Path, device: str | torch.device = "cpu", key: str = "load_student") -> TextEncoder:
    """The student of an exported folder or Hub id, with projection, float32; else UserError, which `key` heads."""
    tokenizer = load_fast_tokenizer(str(source), key)
    model: Any = load_tower(str(source), key)
    if len(tokenizer) > model.config.vocab_size or model.config.eos_token_id != tokenizer.eos_token_id:
        raise UserError(f"{key}: {str(source)!r} has a tokenizer and a model that do not belong together")
    return TextEncoder(model.to(device).eval(), tokenizer)


def load_text_encoder(
    source: str, key: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TextEncoder:
    """The `text_encoder/` of a student's folder or Hub id, with its tokenizer; else UserError, which `key` heads."""
    model: Any = load_pretrained_model(
        CLIPTextModel, source, key, "text_encoder/", subfolder="text_encoder", dtype=dtype
    )
    tokenizer_folder = Path(source) / "tokenizer"  # a Hub id has the same tokenizer at its root
    tokenizer = load_any_tokenizer(str(tokenizer_folder) if tokenizer_folder.is_dir() else source, key)
    if len(tokenizer) > model.config.vocab_size:
        sizes = f"{len(tokenizer)} tokens and its encoder {model.config.vocab_size}"
        raise UserError(f"{key}: {source!r}: its tokenizer has {sizes}; they do not belong together")
    return TextEncoder(model.to(device).eval(), tokenizer)


def plug_into(pipeline: Any, source: str | Path) -> Any:  # noqa: ANN401  diffusers is untyped
    """Put the student of an exported folder or Hub id into a diffusers pipeline, in place, and return the pipeline.

    Its encoder takes the device and the precision of the pipeline's. A pipeline with two encoders, or whose UNet reads
    states of another width, raises UserError and stays as it was.
    """
    class_name = type(pipeline).__name__
    if getattr(pipeline, "text_encoder_2", None) is not None or getattr(pipeline, "unet", None) is None:
        raise UserError(
            f"plug_into: a {class_name} is not a pipeline of Stable Diffusion 1.x or 2.x with one text encoder"
        )
    student = load_text_encoder(str(source), "plug_into", pipeline.dtype, pipeline.device)
    expected = pipeline.unet.config.cross_attention_dim
    if student.hidden_size != expected:
        raise UserError(
            f"plug_into: the UNet reads states of width {expected}, the student's have {student.hidden_size}"
        )
    pipeline.register_modules(text_encoder=student.model, tokenizer=student.tokenizer)
    return pipeline
