"""The student in three lines of Python: as an encoder of captions and prompts, or inside a diffusers pipeline."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data.cli import UserError
from distill.loading import component_source, load_any_tokenizer, load_pretrained_model, resolve_source
from distill.student.tokenizer import load_fast_tokenizer
from distill.text_tower import load_tower


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
    def encode(self, texts: Iterable[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Features [texts, feature_dim] of prompts or captions, float32 and of length 1, in the order of `texts`.

        They are comparable by dot product with the image features of the teacher's CLIP. A text of more than
        `max_length` tokens is cut, the end-of-text kept; an end-of-text inside a text ends it. `texts` is a list, an
        array, a Series or a generator; a row that is no text raises TypeError, half a character ValueError.
        """
        if not isinstance(self.model, CLIPTextModelWithProjection):
            raise UserError("encode: this encoder has no projection; load a whole exported student by load_student")
        rows = _checked_texts(texts)
        ids = self.tokenizer(rows, truncation=True, max_length=self.max_length).input_ids if rows else []
        features = np.zeros((len(rows), self.feature_dim), dtype=np.float32)
        for batch in length_sorted_batches(ids, int(self.tokenizer.eos_token_id), batch_size):
            text_embeds = self.model(input_ids=torch.from_numpy(batch.ids).to(self.model.device)).text_embeds
            features[batch.rows] = F.normalize(text_embeds.float(), dim=-1).cpu().numpy()
        return features

    @torch.no_grad()
    def states(self, texts: Iterable[str], batch_size: int = 64) -> torch.Tensor:
        """Last hidden states [texts, max_length, hidden_size], padding included, for the UNet of Stable Diffusion 1.x.

        That of 2.x reads the states of `text_encoder/`, which has a layer less: `load_text_encoder`.
        """
        rows, device = _checked_texts(texts), self.model.device
        batches = [torch.zeros(0, self.max_length, self.hidden_size, dtype=self.model.dtype, device=device)]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            ids = self.tokenizer(
                batch, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
            ).input_ids
            batches.append(self.model(input_ids=ids.to(device)).last_hidden_state)
        return torch.cat(batches)


@dataclass(frozen=True)
class PaddedBatch:
    """Texts `rows` [batch] of a list; `ids` [batch, length] are padded with end-of-text."""

    rows: list[int]
    ids: NDArray[np.int64]


def length_sorted_batches(ids: Sequence[Sequence[int]], eos_id: int, batch_size: int) -> list[PaddedBatch]:
    """All texts, shortest first, each batch padded to its longest text."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    batches = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = len(ids[rows[-1]])
        padded = np.array([[*ids[row], *[eos_id] * (longest - len(ids[row]))] for row in rows])
        batches.append(PaddedBatch(rows, padded))
    return batches


def _checked_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):  # iterable too, but nobody means its letters
        raise TypeError(f"{texts!r} is one text where a list is needed; put the one text into a list")
    rows: list[Any] = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)  # pyarrow, or any other
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(f"row {row} is {text!r}, no text; leave it out or give ''")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"row {row} holds half a character ({text!r}); read its file with the right encoding")
    return [str(text) for text in rows]


def load_student(source: str | Path, device: str | torch.device = "cpu", key: str = "load_student") -> TextEncoder:
    """The student of an exported folder or Hub id, float32; anything else raises UserError, which `key` heads.

    Of a folder without projection, as a pipeline is, it gives states alone.
    """
    if component_source(str(source), key, "text_encoder").subfolder:
        return load_text_encoder(source, key, device=device)
    tokenizer = load_fast_tokenizer(str(source), key)
    model: Any = load_tower(str(source), key)
    if len(tokenizer) > model.config.vocab_size or model.config.eos_token_id != tokenizer.eos_token_id:
        raise UserError(f"{key}: {str(source)!r} has a tokenizer and a model that do not belong together")
    return TextEncoder(model.to(device).eval(), tokenizer)


def load_text_encoder(
    source: str | Path, key: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TextEncoder:
    """The `text_encoder/` of a student or pipeline, a folder or Hub id, with its tokenizer; else UserError."""
    name = str(source)
    model: Any = load_pretrained_model(CLIPTextModel, name, key, "text_encoder/", subfolder="text_encoder", dtype=dtype)
    inside = Path(resolve_source(name, key)) / "tokenizer"  # a Hub id has the same tokenizer at its root
    tokenizer = load_any_tokenizer(str(inside) if inside.is_dir() else name, key)
    if len(tokenizer) > model.config.vocab_size:
        sizes = f"{len(tokenizer)} tokens and its encoder {model.config.vocab_size}"
        raise UserError(f"{key}: {name!r}: its tokenizer has {sizes}; they do not belong together")
    return TextEncoder(model.to(device).eval(), tokenizer)


def plug_into(pipeline: Any, source: str | Path) -> Any:  # noqa: ANN401  diffusers is untyped
    """Put the student of an exported folder or Hub id into a diffusers pipeline, in place, and return the pipeline.

    Its encoder takes the precision, the device and the offloading of the pipeline's own. A pipeline with two encoders,
    one whose UNet reads states of another width, and one with a LoRA or a textual inversion in its encoder, which would
    be lost, raise UserError and stay as they were.
    """
    _check_pluggable(pipeline)
    student = load_text_encoder(source, "plug_into", pipeline.dtype)
    expected = pipeline.unet.config.cross_attention_dim
    if student.hidden_size != expected:
        raise UserError(
            f"plug_into: the UNet reads states of width {expected}, the student's have {student.hidden_size}"
        )
    student.tokenizer.__class__ = _SAVED_TOKENIZER_CLASS
    place = _placement(pipeline)
    pipeline.register_modules(text_encoder=student.model, tokenizer=student.tokenizer)
    place(student.model)
    return pipeline


_SAVED_TOKENIZER_CLASS = type("PreTrainedTokenizerFast", (PreTrainedTokenizerFast,), {"__module__": "transformers"})
"""By this name a saved pipeline loads in every release; transformers 5 would write TokenizersBackend."""


def _check_pluggable(pipeline: Any) -> None:  # noqa: ANN401
    if getattr(pipeline, "text_encoder_2", None) is not None or getattr(pipeline, "unet", None) is None:
        raise UserError(
            f"plug_into: a {type(pipeline).__name__} is not a pipeline of Stable Diffusion 1.x or 2.x with one text "
            "encoder"
        )
    if getattr(pipeline.text_encoder, "peft_config", None):
        raise UserError("plug_into: a LoRA is loaded; call pipeline.unload_lora_weights(), and load it after plug_into")
    inversions = set(pipeline.tokenizer.get_added_vocab()) - set(pipeline.tokenizer.all_special_tokens)
    if inversions:
        raise UserError(f"plug_into: {min(inversions)} is loaded; load textual inversions after plug_into")
    if hasattr(pipeline.text_encoder, "_diffusers_hook"):
        raise UserError("plug_into: group offloading is on; call plug_into first, then enable_group_offload")


def _placement(pipeline: Any) -> Callable[[nn.Module], object]:  # noqa: ANN401
    """What puts a new encoder where the pipeline's is now: on its device, or under the same hooks of accelerate."""
    hooks = [module._hf_hook for module in pipeline.text_encoder.modules() if hasattr(module, "_hf_hook")]
    if not hooks:
        own_device = pipeline.text_encoder.device
        return lambda model: model.to(own_device)
    device = next(hook.execution_device for hook in hooks if getattr(hook, "execution_device", None) is not None)
    if any(isinstance(hook, accelerate.hooks.CpuOffload) for hook in hooks):
        return lambda model: pipeline.enable_model_cpu_offload(device=pipeline._offload_device)
    if any(getattr(hook, "offload", False) for hook in hooks):  # sequential; weights outside of submodules need buffers
        return lambda model: accelerate.cpu_offload(model, device, offload_buffers=len(model._parameters) > 0)
    return lambda model: accelerate.dispatch_model(model, device_map={"": device}, force_hooks=True)
