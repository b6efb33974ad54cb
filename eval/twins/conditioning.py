"""A pipeline to draw with, its own encoder, and whether a student fits it."""

import logging
import warnings
from typing import Any

import diffusers
import torch
from transformers.utils.logging import disable_progress_bar

from data.command import UserError, one_line
from distill.conditioner import Conditioner
from distill.pipeline_kind import refuse_other_kind, refuse_other_unet
from eval.twins.sampling import Pipeline

BYTES = 512
"""Tokens that any CLIP tokenizer has: each byte, within a word and at its end."""


def load_pipeline(source: str, device: torch.device) -> Pipeline:
    """A Stable Diffusion 1.x or 2.x pipeline in fp32, from a folder or Hub id; others are refused before they load."""
    key = f"--pipeline {source}"
    kind: Any = diffusers.StableDiffusionPipeline
    unet: Any = diffusers.UNet2DConditionModel
    disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of a second would hide the lines that matter
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # what is wrong is one line, ours
    try:
        refuse_other_kind(kind.load_config(source), key)
        refuse_other_unet(unet.load_config(source, subfolder="unet"), key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `torch_dtype` is the name that every release knows
            pipeline = kind.from_pretrained(
                source, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False,
                use_safetensors=True,
            )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # a damaged folder raises whatever diffusers stumbles over
        raise UserError(f"{key}: no Stable Diffusion 1.x or 2.x pipeline in safetensors ({one_line(error)})") from error
    if pipeline.tokenizer is None or len(pipeline.tokenizer) < BYTES:  # transformers makes one out of nothing
        raise UserError(f"{key}: no vocabulary in its tokenizer/; fetch the pipeline again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def own_conditioner(pipeline: Pipeline) -> Conditioner:
    """The pipeline's own encoder: the teacher."""
    return Conditioner(pipeline.text_encoder.eval(), pipeline.tokenizer)


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
