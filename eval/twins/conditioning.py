"""What the UNet attends to: prompts as states, from the pipeline's own encoder or from a student."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from data.command import UserError
from distill.tower import check_local
from eval.twins.sampling import Pipeline

Encoder = CLIPTextModel | CLIPTextModelWithProjection
UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)


@dataclass(frozen=True)
class Conditioner:
    """An encoder with its tokenizer."""

    encoder: Encoder
    tokenizer: PreTrainedTokenizerBase
    slots: int

    @property
    def width(self) -> int:
        """Of the states."""
        return int(self.encoder.config.hidden_size)

    @torch.no_grad()
    def states(self, texts: list[str], chunk: int = 64) -> Tensor:
        """[texts, slots, width]; a text that is too long is cut, as the pipeline would."""
        parts = []
        for start in range(0, len(texts), chunk):
            some = texts[start : start + chunk]
            ids = self.tokenizer(
                some, padding="max_length", max_length=self.slots, truncation=True, return_tensors="pt"
            ).input_ids
            parts.append(self.encoder(ids.to(self.encoder.device)).last_hidden_state)
        return torch.cat(parts)


def load_pipeline(source: str, device: torch.device) -> Pipeline:
    """A Stable Diffusion 1.x or 2.x pipeline in fp32, from a folder or Hub id."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of a second would hide the lines that matter
    diffusers.utils.logging.disable_progress_bar()
    try:
        kind: Any = diffusers.StableDiffusionPipeline
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `torch_dtype` is the name that every release knows
            pipeline = kind.from_pretrained(
                source, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False,
                use_safetensors=True,
            )  # fmt: skip
    except UNREADABLE as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"--pipeline {source}: no Stable Diffusion 1.x or 2.x pipeline in safetensors ({first})"
        ) from error
    if pipeline.unet.config.addition_embed_type is not None:
        raise UserError(f"--pipeline {source}: its UNet needs more than text states (SDXL?); give an SD 1.x or 2.x one")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def own_conditioner(pipeline: Pipeline) -> Conditioner:
    """The pipeline's own encoder: the teacher."""
    encoder = pipeline.text_encoder.eval()
    return Conditioner(encoder, pipeline.tokenizer, encoder.config.max_position_embeddings)


def load_conditioner(source: str, device: torch.device) -> Conditioner:
    """A student's encoder, from an exported folder or a Hub id."""
    folder = Path(source)
    inner = folder / "text_encoder"
    check_local(source, "--student")
    try:
        if inner.is_dir():
            encoder: Encoder = CLIPTextModel.from_pretrained(inner, dtype=torch.float32, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        else:
            encoder = CLIPTextModelWithProjection.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(source)
    except UNREADABLE as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--student {source}: no text encoder with a tokenizer can be read ({first})") from error
    torch.nn.Module.to(encoder, device).train(False)
    return Conditioner(encoder, tokenizer, encoder.config.max_position_embeddings)


def check_fit(student: Conditioner, pipeline: Pipeline, names: tuple[str, str]) -> None:
    """Refuse a student whose states the UNet cannot attend to; `names` are those of student and pipeline."""
    width = pipeline.unet.config.cross_attention_dim
    if student.width != width:
        raise UserError(
            f"--student {names[0]}: states of width {student.width}, but the UNet of {names[1]} attends to {width}; "
            "take a student that was distilled from this pipeline's own text encoder"
        )
    if student.slots != pipeline.text_encoder.config.max_position_embeddings:
        raise UserError(
            f"--student {names[0]}: {student.slots} slots, but the encoder of {names[1]} has "
            f"{pipeline.text_encoder.config.max_position_embeddings}; the twins would not see the same"
        )
