"""Drawing with a fixed UNet: deterministic trajectories from given noise, under given states."""

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Solver = Any  # diffusers.DPMSolverMultistepScheduler
Pipeline = Any  # diffusers.StableDiffusionPipeline; diffusers has no types


@dataclass(frozen=True)
class Drawing:
    """How to draw; `guidance` 1 leaves the empty prompt out."""

    steps: int = 20
    guidance: float = 7.5
    batch: int = 64  # pictures at once


@dataclass(frozen=True)
class Path:
    """Latents [steps + 1, n, c, h, w], first the noise, and the times [steps] at which the UNet saw them."""

    latents: Tensor
    times: Tensor


def noise(pipeline: Pipeline, seeds: list[int]) -> Tensor:
    """[len(seeds), c, h, w] of unit variance, each from its own seed, the same on every device."""
    shape = (pipeline.unet.config.in_channels, pipeline.unet.config.sample_size, pipeline.unet.config.sample_size)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(pipeline.device)


def scheduler(pipeline: Pipeline, steps: int) -> Solver:
    """DPM-Solver++ of the pipeline's own noise schedule: deterministic, so that twins differ by their states alone."""
    kind: Any = diffusers.DPMSolverMultistepScheduler
    made = kind.from_config(pipeline.scheduler.config, algorithm_type="dpmsolver++")
    made.set_timesteps(steps, device=pipeline.device)
    return made


@torch.no_grad()
def draw(pipeline: Pipeline, start: Tensor, states: Tensor, empty: Tensor, how: Drawing) -> Path:
    """Trajectories from start [n, c, h, w] under states [n, slots, d], guided away from empty [1, slots, d]."""
    steps = scheduler(pipeline, how.steps)
    latents = start * steps.init_noise_sigma
    kept = [latents]
    both = torch.cat([empty.expand(len(states), -1, -1), states]) if how.guidance != 1 else states
    for time in steps.timesteps:
        seen = steps.scale_model_input(latents, time)
        if how.guidance == 1:
            predicted = pipeline.unet(seen, time, both).sample
        else:
            free, led = pipeline.unet(torch.cat([seen, seen]), time, both).sample.chunk(2)
            predicted = free + how.guidance * (led - free)
        latents = steps.step(predicted, time, latents).prev_sample
        kept.append(latents)
    return Path(torch.stack(kept), steps.timesteps)


@torch.no_grad()
def pictures(pipeline: Pipeline, latents: Tensor) -> NDArray[np.uint8]:
    """[n, height, width, 3] of latents [n, c, h, w]."""
    drawn = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    found: NDArray[np.uint8] = (
        ((drawn.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    )
    return found
