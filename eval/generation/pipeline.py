"""Generation with a fixed UNet: deterministic trajectories from given noise, under given states of a prompt."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from data.cli import UserError, one_line
from distill.api import TextEncoder, TextEncoderPair, is_pair, load_pair, load_text_encoder
from distill.export.pipeline import check_unet_config, num_encoders
from distill.single_file import unpacked

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
class UnetText:
    """What the UNet reads of n prompts: states [n, length, width], and SDXL's pooled states [n, dim]."""

    states: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.states)

    def rows(self, rows: Sequence[int] | slice) -> "UnetText":
        """Some of the prompts."""
        return UnetText(self.states[rows], None if self.pooled is None else self.pooled[rows])

    def expand(self, number: int) -> "UnetText":
        """One prompt as often, or as many as there are."""
        pooled = None if self.pooled is None else self.pooled.expand(number, -1)
        return UnetText(self.states.expand(number, -1, -1), pooled)

    def after(self, first: "UnetText") -> "UnetText":
        """`first` and these."""
        both = None if self.pooled is None or first.pooled is None else torch.cat([first.pooled, self.pooled])
        return UnetText(torch.cat([first.states, self.states]), both)


def encode_text(encoder: TextEncoder, texts: list[str]) -> UnetText:
    """What the UNet reads of the texts by an encoder, or by SDXL's two."""
    return UnetText(encoder.states(texts), encoder.pooled(texts) if isinstance(encoder, TextEncoderPair) else None)


def unconditional_text(pipeline: Pipeline, empty: UnetText) -> UnetText:
    """What guidance leads away from: `empty`, or zeros in pipelines of SDXL that say so, as the released one."""
    if not pipeline.config.get("force_zeros_for_empty_prompt"):
        return empty
    return UnetText(torch.zeros_like(empty.states), None if empty.pooled is None else torch.zeros_like(empty.pooled))


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


def predict(pipeline: Pipeline, latents: Tensor, time: Tensor, text: UnetText) -> Tensor:
    """The UNet's prediction [n, c, h, w] in fp32, in the pipeline's precision; SDXL's of an uncropped picture."""
    added = None
    if text.pooled is not None:
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        time_ids = torch.tensor([[side, side, 0, 0, side, side]], device=latents.device).expand(len(latents), -1)
        added = {"text_embeds": text.pooled.to(pipeline.dtype), "time_ids": time_ids}
    states, latents = text.states.to(pipeline.dtype), latents.to(pipeline.dtype)
    prediction: Tensor = pipeline.unet(latents, time, states, added_cond_kwargs=added).sample
    return prediction.float()


@torch.no_grad()
def sample(pipeline: Pipeline, start: Tensor, text: UnetText, empty: UnetText, config: SamplingConfig) -> Trajectory:
    """Trajectories from start [n, c, h, w] under n prompts, guided away from the one of `empty`."""
    solver = make_solver(pipeline, config.steps)
    latents = start * solver.init_noise_sigma
    trajectory = [latents]
    guided = config.guidance != 1
    both = text.after(empty.expand(len(text))) if guided else text
    for time in solver.timesteps:
        scaled = solver.scale_model_input(latents, time)
        if guided:
            unconditional, conditional = predict(pipeline, torch.cat([scaled, scaled]), time, both).chunk(2)
            prediction = unconditional + config.guidance * (conditional - unconditional)
        else:
            prediction = predict(pipeline, scaled, time, both)
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
    """A Stable Diffusion 1.x, 2.x or XL pipeline from a folder or Hub id; UserError for others, before weights load."""
    source = unpacked(source, "--pipeline")
    key = f"--pipeline {source}"
    pipeline_class: Any = diffusers.StableDiffusionPipeline
    unet_class: Any = diffusers.UNet2DConditionModel
    disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of a second would hide the lines that matter
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # what is wrong is one line, ours
    try:
        encoders = num_encoders(pipeline_class.load_config(source), key)
        check_unet_config(unet_class.load_config(source, subfolder="unet"), key, encoders)
        settings: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
        if encoders == 2:
            pipeline_class, settings = diffusers.StableDiffusionXLPipeline, {"add_watermarker": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `torch_dtype` is the name that every release knows
            pipeline = pipeline_class.from_pretrained(source, torch_dtype=dtype, use_safetensors=True, **settings)
    except UserError:
        raise
    except Exception as error:  # diffusers raises anything for a damaged folder
        raise UserError(f"{key}: no Stable Diffusion pipeline in safetensors ({one_line(error)})") from error
    if pipeline.tokenizer is None or len(pipeline.tokenizer) < MIN_VOCAB_SIZE:  # transformers makes one out of nothing
        raise UserError(f"{key}: no vocabulary in its tokenizer/; fetch the pipeline again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def is_xl(pipeline: Pipeline) -> bool:
    """Whether the pipeline is one of SDXL."""
    return isinstance(pipeline, diffusers.StableDiffusionXLPipeline)


def pipeline_text_encoder(pipeline: Pipeline) -> TextEncoder:
    """The pipeline's own encoder, or SDXL's two: the teacher."""
    if is_xl(pipeline):
        second = TextEncoder(pipeline.text_encoder_2.eval(), pipeline.tokenizer_2)
        return TextEncoderPair(pipeline.text_encoder.eval(), pipeline.tokenizer, second)
    return TextEncoder(pipeline.text_encoder.eval(), pipeline.tokenizer)


def load_prompt_encoder(source: str, key: str, dtype: torch.dtype, device: torch.device) -> TextEncoder:
    """The encoder of a student or pipeline that a UNet reads, or SDXL's two."""
    return (load_pair if is_pair(source, key) else load_text_encoder)(source, key, dtype, device)


def check_student_fit(student: TextEncoder, pipeline: Pipeline, names: tuple[str, str]) -> None:
    """Raise UserError for a student that does not fit the UNet; `names` are those of student and pipeline."""
    width = pipeline.unet.config.cross_attention_dim
    if isinstance(student, TextEncoderPair) != is_xl(pipeline):
        raise UserError(
            f"--student {names[0]}: one of the two has a text encoder and the other two, as SDXL has; "
            f"take a student that was distilled from {names[1]}"
        )
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
