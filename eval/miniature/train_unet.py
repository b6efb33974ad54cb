"""Trains the denoiser on latents and text states of English prompts, one in ten empty, and scores what it draws."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTextModel

from data.miniature.corpus import TEST_CAPTION_SEED, caption_pair
from data.miniature.scene import BACKGROUNDS, Scene
from eval.generation.pipeline import (
    Pipeline,
    SamplingConfig,
    decode_latents,
    encode_text,
    images_at_once,
    noise_seed,
    pipeline_text_encoder,
    sample,
    seeded_noise,
    unconditional_text,
)
from eval.generation.recogniser import FIELDS, Recogniser, SceneMatch, match_scene, match_shares, recognise
from eval.miniature.dataset import SceneSet, batch_rows, cached_array
from eval.miniature.train_clip import WIDTH
from eval.miniature.train_images import LATENT_CHANNELS, cell_losses
from eval.miniature.training_loop import TrainingConfig, autocast, fit

Unet = Any  # diffusers.UNet2DConditionModel; diffusers has no types
Scheduler = Any  # diffusers.DDPMScheduler
BATCH = 128
EMPTY_SHARE = 0.1  # of the prompts, so that guidance works
GAMMA = 5.0  # min-SNR weighting
READOUT_WEIGHT = 0.1  # weight of the read-out


def new_unet() -> Unet:
    """A stock denoiser of latents [n, 16, 8, 8] that attends to text at 4x4."""
    kind: Any = diffusers.UNet2DConditionModel
    return kind(
        sample_size=8, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, block_out_channels=(128, 192),
        layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=WIDTH, attention_head_dim=4,
        norm_num_groups=16,
    )  # fmt: skip


def new_scheduler() -> Scheduler:
    """Stable Diffusion's noise schedule, predicting velocity."""
    kind: Any = diffusers.DDPMScheduler
    return kind(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip


@dataclass(frozen=True)
class UnetPrompts:
    """What a UNet reads of no prompt and of n prompts: states [1 + n, 77, width] of one encoder or of two side by side.

    SDXL's also reads `pooled` [1 + n, width] and `time_ids` [6]; of half the prompts left out it reads zeros, which is
    what its pipelines give it for no negative prompt.
    """

    states: tuple[NDArray[np.float16], ...]
    pooled: NDArray[np.float16] | None = None
    time_ids: tuple[int, ...] = ()

    def take(self, rows: NDArray[np.intp], has_text: Tensor) -> tuple[Tensor, dict[str, Tensor] | None]:
        """States [rows, 77, width] of prompts, or of no prompt, and SDXL's other inputs."""
        stored = np.where(has_text.numpy(), rows + 1, 0)
        states = torch.cat([torch.from_numpy(each[stored].astype(np.float32)) for each in self.states], dim=2)
        if self.pooled is None:
            return states, None
        kept = torch.from_numpy((stored > 0) | (rows % 2 == 0))[:, None]
        pooled = torch.from_numpy(self.pooled[stored].astype(np.float32))
        time_ids = torch.tensor(self.time_ids).expand(len(rows), -1)
        return states * kept[:, :, None], {"text_embeds": pooled * kept, "time_ids": time_ids}


class TrainedPrompts(nn.Module):
    """What a UNet reads of no prompt and of n prompts, by an encoder that trains with it, as in a fine-tuned model."""

    def __init__(self, encoder: CLIPTextModel, ids: Tensor) -> None:
        """Train `encoder`, in place; `ids` [1 + n, 77]."""
        super().__init__()
        self.encoder, self._ids = encoder, ids

    def take(self, rows: NDArray[np.intp], has_text: Tensor) -> tuple[Tensor, None]:
        """States [rows, 77, width] of prompts, or of no prompt."""
        with autocast():
            states: Tensor = self.encoder(self._ids[np.where(has_text.numpy(), rows + 1, 0)]).last_hidden_state
        return states.float(), None


EncodeTexts = Callable[[list[str]], Tensor]


def cached_states(
    encode: EncodeTexts, texts: list[str], shape: tuple[int, ...], path: Path
) -> NDArray[np.float16]:  # fmt: skip
    """encode(texts) [n, *shape]; read from `path` or computed into it."""

    @torch.no_grad()
    def compute(rows: slice) -> NDArray[np.float32]:
        states: NDArray[np.float32] = encode(texts[rows]).numpy()
        return states

    return cached_array(path, np.float16, (len(texts), *shape), compute, batch=128)


class UnetLearner(nn.Module):
    """The denoiser and a read-out of its middle, which is only for training.

    The read-out predicts the content of each cell: a shorter way from words to positions than the picture's error
    (representation alignment, Yu et al. 2024, with the true scene instead of another network's features).
    """

    def __init__(self, unet: Unet, prompts: UnetPrompts | TrainedPrompts) -> None:
        """Hook the middle block, whose output [n, 192, 4, 4] the read-out needs; an encoder of `prompts` trains too."""
        super().__init__()
        self.unet, self.prompts = unet, prompts
        middle = unet.config.block_out_channels[-1]
        self.cells = nn.Sequential(nn.Conv2d(middle, 4 * sum(FIELDS), 1), nn.PixelShuffle(2))
        self.background = nn.Linear(middle, len(BACKGROUNDS))
        self._middle: Tensor
        unet.mid_block.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._middle = output

    def forward(self, noisy: Tensor, times: Tensor, states: Tensor, added: dict[str, Tensor] | None) -> "UnetOutput":
        """The output for latents [n, 16, 8, 8] at times [n]."""
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        velocity = self.unet(noisy, times, states, added_cond_kwargs=added).sample
        background = self.background(self._middle.mean((2, 3)))
        return UnetOutput(velocity.float(), self.cells(self._middle).float(), background.float())


@dataclass(frozen=True)
class UnetOutput:
    """The velocity [n, 16, 8, 8], and what the middle says of cells [n, fields, 8, 8] and background [n, 8]."""

    velocity: Tensor
    cells: Tensor
    background: Tensor


def train_unet(
    unet: Unet, latents: Tensor, prompts: UnetPrompts | TrainedPrompts, data: SceneSet, config: TrainingConfig,
    seed: int, folder: Path, batch: int = BATCH,
) -> float:  # fmt: skip
    """Train a denoiser of latents [n, 16, 8, 8] under the n prompts, in place, and return its CPU seconds."""
    unet.to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # on a CPU in bf16 faster to train than the fused kind
    learner = UnetLearner(unet, prompts)
    alphas_cumprod = new_scheduler().alphas_cumprod

    def losses(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed * 10**9 + step)
        rows = batch_rows(len(latents), batch, seed, step)
        stratified = torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
        times = (stratified * len(alphas_cumprod) / batch).long()
        has_text = torch.rand(batch, generator=generator) >= EMPTY_SHARE
        states, added = prompts.take(rows, has_text)
        clean, noise = latents[rows], torch.randn(batch, *latents.shape[1:], generator=generator)
        share = alphas_cumprod[times][:, None, None, None]
        noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
        target_velocity = share.sqrt() * noise - (1 - share).sqrt() * clean
        with autocast():
            output: UnetOutput = learner(noisy, times, states, added)
        error = F.mse_loss(output.velocity, target_velocity, reduction="none").mean((1, 2, 3))
        ratio = alphas_cumprod[times] / (1 - alphas_cumprod[times])
        cell_terms = cell_losses(output.cells[has_text], data.cells[rows][has_text])
        background = F.cross_entropy(output.background[has_text], data.backgrounds[rows][has_text])
        return {
            "velocity": (error * ratio.clamp(max=GAMMA) / (ratio + 1)).mean() * 4,
            "cells": READOUT_WEIGHT * torch.stack(list(cell_terms.values())).sum(),
            "background": READOUT_WEIGHT * background,
        }

    seconds = fit("unet", learner, config, losses, folder)
    unet.to(memory_format=torch.contiguous_format)  # the only form that safetensors writes
    return seconds


def generation_scores(pipeline: Pipeline, recogniser: Recogniser, scenes: list[Scene], seeds: int) -> dict[str, float]:
    """`match_shares` of what a pipeline draws for its own English prompts, `seeds` pictures a scene."""
    sampling = SamplingConfig(steps=20, guidance=4.0)
    teacher = pipeline_text_encoder(pipeline)
    prompts = [
        caption_pair(s, ("caption", "prompt")[i % 2], TEST_CAPTION_SEED + i, "train").en for i, s in enumerate(scenes)
    ]
    text, empty = encode_text(teacher, prompts), unconditional_text(pipeline, encode_text(teacher, [""]))
    matches: list[SceneMatch] = []
    cases = [(row, seed) for seed in range(seeds) for row in range(len(scenes))]
    batch_size = images_at_once(pipeline, sampling)
    for start in tqdm(range(0, len(cases), batch_size), desc="pictures", mininterval=5):
        batch = cases[start : start + batch_size]
        initial_noise = seeded_noise(pipeline, [noise_seed(row, seed) for row, seed in batch])
        rows = [row for row, _ in batch]
        path = sample(pipeline, initial_noise, text.rows(rows), empty, sampling)
        drawn = decode_latents(pipeline, path.latents[-1])
        matches += [match_scene(scenes[row], one) for row, one in zip(rows, recognise(recogniser, drawn), strict=True)]
    return match_shares(matches)
