"""Generation with a fixed UNet: deterministic trajectories from given noise, under given states of a prompt."""

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
MIN_VOCAB_SIZE = 512  # tokens that any CLIP tokenizer has: each byte, within a word and at its end
MAX_BATCH = 64
SAMPLED_LATENTS, DECODED_LATENTS = 8 * 64 * 64, 4 * 64 * 64
"""Positions of all latents in one UNet call (twice that with guidance) and in one VAE call: 8 and 4 images of
Stable Diffusion 1.5, whose VAE takes 0.8 GB for an image in fp32."""


@dataclass(frozen=True)
class SamplingConfig:
    """How images are sampled.

    Args:
        steps: Solver steps.
        guidance: Classifier-free guidance; 1 leaves the empty prompt out.
        batch: Images at once; by default as many as the size of the latents allows, 8 of Stable Diffusion 1.5.
    """

    steps: int = 20
    guidance: float = 7.5
    batch: int | None = None


@dataclass(frozen=True)
class Trajectory:
    """Latents [steps + 1, n, c, h, w] in fp32, first the noise, and the times [steps] of the UNet's calls."""

    latents: Tensor
    times: Tensor


def images_at_once(pipeline: Pipeline, sampling: SamplingConfig) -> int:
    """The images of one batch."""
    return sampling.batch or max(1, min(MAX_BATCH, SAMPLED_LATENTS // pipeline.unet.config.sample_size**2))


def noise_seed(row: int, seed: int) -> int:
    """The seed of the noise of prompt `row` in run `seed`: two runs share none below a million prompts."""
    return seed * 1_000_003 + row


def seeded_noise(pipeline: Pipeline, seeds: list[int]) -> Tensor:
    """[len(seeds), c, h, w] in fp32 of unit variance, each from its own seed, the same on every device."""
    shape = (pipeline.unet.config.in_channels, pipeline.unet.config.sample_size, pipeline.unet.config.sample_size)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(pipeline.device)


def make_solver(pipeline: Pipeline, steps: int) -> Solver:
    """DPM-Solver++ with the pipeline's noise schedule: deterministic, so that images differ by their states alone."""
    solver_class: Any = diffusers.DPMSolverMultistepScheduler
    solver = solver_class.from_config(pipeline.scheduler.config, algorithm_type="dpmsolver++")
    solver.set_timesteps(steps, device=pipeline.device)
    return solver


def predict(pipeline: Pipeline, latents: Tensor, time: Tensor, states: Tensor) -> Tensor:
    """The UNet's prediction [n, c, h, w] in fp32, computed in the pipeline's precision."""
    prediction: Tensor = pipeline.unet(latents.to(pipeline.dtype), time, states.to(pipeline.dtype)).sample
    return prediction.float()


@torch.no_grad()
def sample(pipeline: Pipeline, start: Tensor, states: Tensor, empty: Tensor, config: SamplingConfig) -> Trajectory:
    """Trajectories from start [n, c, h, w] under states [n, length, d], guided away from empty [1, length, d]."""
    solver = make_solver(pipeline, config.steps)
    latents = start * solver.init_noise_sigma
    trajectory = [latents]
    guided = config.guidance != 1
    text_states = torch.cat([empty.expand(len(states), -1, -1), states]) if guided else states
    for time in solver.timesteps:
        scaled = solver.scale_model_input(latents, time)
        if guided:
            unconditional, conditional = predict(pipeline, torch.cat([scaled, scaled]), time, text_states).chunk(2)
            prediction = unconditional + config.guidance * (conditional - unconditional)
        else:
            prediction = predict(pipeline, scaled, time, text_states)
        latents = solver.step(prediction, time, latents).prev_sample
        trajectory.append(latents)
    return Trajectory(torch.stack(trajectory), solver.timesteps)


@torch.no_grad()
def decode_latents(pipeline: Pipeline, latents: Tensor) -> NDArray[np.uint8]:
    """Images [n, height, width, 3] of latents [n, c, h, w], decoded in slices of DECODED_LATENTS."""
    scaled = (latents / pipeline.vae.config.scaling_factor).to(pipeline.dtype)
    slices = scaled.split(max(1, DECODED_LATENTS // latents[0, 0].numel()))
    decoded = [pipeline.vae.decode(part).sample.float().clamp(-1, 1) for part in slices]
    bytes_ = ((torch.cat(decoded) + 1) * 127.5).round().byte()
    images: NDArray[np.uint8] = bytes_.permute(0, 2, 3, 1).cpu().numpy()
    return images


def load_pipeline(source: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Pipeline:
    """A Stable Diffusion 1.x or 2.x pipeline from a folder or Hub id; UserError for others, before weights load."""
    key = f"--pipeline {source}"
    pipeline_class: Any = diffusers.StableDiffusionPipeline
    unet_class: Any = diffusers.UNet2DConditionModel
    disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of a second would hide the lines that matter
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # what is wrong is one line, ours
    try:
        check_pipeline_class(pipeline_class.load_config(source), key)
        check_unet_config(unet_class.load_config(source, subfolder="unet"), key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `torch_dtype` is the name that every release knows
            pipeline = pipeline_class.from_pretrained(
                source, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False,
                use_safetensors=True,
            )  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # diffusers raises anything for a damaged folder
        raise UserError(f"{key}: no Stable Diffusion 1.x or 2.x pipeline in safetensors ({one_line(error)})") from error
    if pipeline.tokenizer is None or len(pipeline.tokenizer) < MIN_VOCAB_SIZE:  # transformers makes one out of nothing
        raise UserError(f"{key}: no vocabulary in its tokenizer/; fetch the pipeline again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def pipeline_text_encoder(pipeline: Pipeline) -> TextEncoder:
    """The pipeline's own encoder: the teacher."""
    return TextEncoder(pipeline.text_encoder.eval(), pipeline.tokenizer)


def check_student_fit(student: TextEncoder, pipeline: Pipeline, names: tuple[str, str]) -> None:
    """Raise UserError for a student that does not fit the UNet; `names` are those of student and pipeline."""
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
