"""Drawing with a fixed UNet: deterministic trajectories from given noise, under given states.

A pipeline to draw with, its own encoder, and whether a student fits it.
"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from data.cli import UserError, one_line
from distill.api import TextEncoder
from distill.export.pipeline import check_pipeline_class, check_unet_config

Solver = Any  # diffusers.DPMSolverMultistepScheduler
Pipeline = Any  # diffusers.StableDiffusionPipeline; diffusers has no types


@dataclass(frozen=True)
class SamplingConfig:
    """How to draw; `guidance` 1 leaves the empty prompt out."""

    steps: int = 20
    guidance: float = 7.5
    batch: int = 64  # pictures at once


@dataclass(frozen=True)
class Trajectory:
    """Latents [steps + 1, n, c, h, w], first the noise, and the times [steps] at which the UNet saw them."""

    latents: Tensor
    times: Tensor


def seeded_noise(pipeline: Pipeline, seeds: list[int]) -> Tensor:
    """[len(seeds), c, h, w] of unit variance, each from its own seed, the same on every device."""
    shape = (pipeline.unet.config.in_channels, pipeline.unet.config.sample_size, pipeline.unet.config.sample_size)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(pipeline.device)


def make_solver(pipeline: Pipeline, steps: int) -> Solver:
    """DPM-Solver++ of the pipeline's own noise schedule: deterministic, so that twins differ by their states alone."""
    kind: Any = diffusers.DPMSolverMultistepScheduler
    solver = kind.from_config(pipeline.scheduler.config, algorithm_type="dpmsolver++")
    solver.set_timesteps(steps, device=pipeline.device)
    return solver


@torch.no_grad()
def sample(pipeline: Pipeline, start: Tensor, states: Tensor, empty: Tensor, config: SamplingConfig) -> Trajectory:
    """Trajectories from start [n, c, h, w] under states [n, slots, d], guided away from empty [1, slots, d]."""
    solver = make_solver(pipeline, config.steps)
    latents = start * solver.init_noise_sigma
    trajectory = [latents]
    text_states = torch.cat([empty.expand(len(states), -1, -1), states]) if config.guidance != 1 else states
    for time in solver.timesteps:
        scaled_latents = solver.scale_model_input(latents, time)
        if config.guidance == 1:
            predicted = pipeline.unet(scaled_latents, time, text_states).sample
        else:
            unconditional, conditional = pipeline.unet(
                torch.cat([scaled_latents, scaled_latents]), time, text_states
            ).sample.chunk(2)
            predicted = unconditional + config.guidance * (conditional - unconditional)
        latents = solver.step(predicted, time, latents).prev_sample
        trajectory.append(latents)
    return Trajectory(torch.stack(trajectory), solver.timesteps)


@torch.no_grad()
def decode_latents(pipeline: Pipeline, latents: Tensor) -> NDArray[np.uint8]:
    """[n, height, width, 3] of latents [n, c, h, w]."""
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    images: NDArray[np.uint8] = (
        ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    )
    return images


MIN_VOCAB_SIZE = 512
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
        check_pipeline_class(kind.load_config(source), key)
        check_unet_config(unet.load_config(source, subfolder="unet"), key)
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
    if pipeline.tokenizer is None or len(pipeline.tokenizer) < MIN_VOCAB_SIZE:  # transformers makes one out of nothing
        raise UserError(f"{key}: no vocabulary in its tokenizer/; fetch the pipeline again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def pipeline_text_encoder(pipeline: Pipeline) -> TextEncoder:
    """The pipeline's own encoder: the teacher."""
    return TextEncoder(pipeline.text_encoder.eval(), pipeline.tokenizer)


def check_student_fit(student: TextEncoder, pipeline: Pipeline, names: tuple[str, str]) -> None:
    """Refuse a student whose states the UNet cannot attend to; `names` are those of student and pipeline."""
    width = pipeline.unet.config.cross_attention_dim
    if student.hidden_size != width:
        raise UserError(
            f"--student {names[0]}: states of width {student.hidden_size}, but the UNet of "
            f"{names[1]} attends to {width}; "
            "take a student that was distilled from this pipeline's own text encoder"
        )
    if student.max_length != pipeline.text_encoder.config.max_position_embeddings:
        raise UserError(
            f"--student {names[0]}: {student.max_length} slots, but the encoder of {names[1]} has "
            f"{pipeline.text_encoder.config.max_position_embeddings}; the twins would not see the same"
        )
