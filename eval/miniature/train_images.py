"""Trains the networks of pictures: the recogniser, and the autoencoder whose latents the denoiser predicts."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.miniature.scene import Scene
from eval.generation.recogniser import FIELDS, Recogniser, as_input, as_pictures, match_scene, match_shares, recognise
from eval.miniature.dataset import SceneSet, batch_rows
from eval.miniature.training_loop import TrainingConfig, autocast, fit

RECOGNISER_BATCH, AUTOENCODER_BATCH = 128, 24
Autoencoder = Any  # diffusers.AutoencoderTiny; diffusers has no types
NUM_RECOGNISED = 12  # pictures of a batch in the terms that use the recogniser
LATENT_CHANNELS = 16
NOISE = 0.12  # added to the latents while training, so that the denoiser's remaining noise does not show


def cell_losses(cells: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """A loss for each field of the cells [n, fields, 8, 8] against the targets [n, 8, 8, 6]."""
    presence, offset, kind, colour, size = torch.split(cells.float().permute(0, 2, 3, 1), FIELDS, dim=3)
    occupied = truth[..., 0] == 1
    occupied_truth = truth[occupied].long()
    return {
        "presence": 10 * F.binary_cross_entropy_with_logits(presence[..., 0], occupied.float()),
        "offset": F.smooth_l1_loss(offset[occupied], occupied_truth[:, 1:3] / 100),
        "kind": F.cross_entropy(kind[occupied], occupied_truth[:, 3]),
        "colour": F.cross_entropy(colour[occupied], occupied_truth[:, 4]),
        "size": 0.5 * F.cross_entropy(size[occupied], occupied_truth[:, 5]),
    }


def perturb_images(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Noise, a little blur and a change of contrast, against sensitivity to an autoencoder's blur."""
    number = (len(inputs), 1, 1, 1)
    blurred = F.avg_pool2d(F.pad(inputs, (1, 1, 1, 1), mode="replicate"), 3, 1)
    inputs = torch.lerp(inputs, blurred, 0.8 * torch.rand(number, generator=generator))
    inputs = inputs + 0.12 * torch.rand(number, generator=generator) * torch.randn(inputs.shape, generator=generator)
    return inputs * (0.93 + 0.1 * torch.rand(number, generator=generator))


def train_recogniser(data: SceneSet, config: TrainingConfig, seed: int, folder: Path) -> tuple[Recogniser, float]:
    """A trained recogniser; resumes from `folder`."""
    torch.manual_seed(seed)
    network = Recogniser()

    def losses(step: int) -> dict[str, Tensor]:
        rows = np.sort(batch_rows(len(data.scenes), RECOGNISER_BATCH, seed, step))
        inputs = perturb_images(as_input(data.images[rows]), torch.Generator().manual_seed(step))
        with autocast():
            cell_logits, background_logits = network(inputs.to(memory_format=torch.channels_last))
        background = 0.3 * F.cross_entropy(background_logits.float(), data.backgrounds[rows])
        return cell_losses(cell_logits, data.cells[rows]) | {"background": background}

    seconds = fit("recogniser", network, config, losses, folder)
    return network, seconds


def recogniser_scores(network: Recogniser, scenes: list[Scene], images: NDArray[np.uint8]) -> dict[str, float]:
    """`match_shares` of the recogniser's output on pictures of known scenes."""
    recognised = zip(scenes, recognise(network, images), strict=True)
    return match_shares([match_scene(scene, content) for scene, content in recognised])


def new_autoencoder() -> Autoencoder:
    """Pictures [n, 3, 64, 64] in -1..1 to latents [n, 16, 8, 8] and back."""
    kind: Any = diffusers.AutoencoderTiny
    return kind(
        encoder_block_out_channels=(48, 48, 48, 48), decoder_block_out_channels=(64, 64, 64, 64),
        num_encoder_blocks=(0, 0, 2, 3), num_decoder_blocks=(6, 3, 0, 0), latent_channels=LATENT_CHANNELS,
    )  # fmt: skip


def _moment_penalty(latents: Tensor) -> Tensor:
    """Distance of the channels from mean 0 and variance 1, the distribution of noise."""
    means, variances = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return means.square().mean() + (variances - 1).square().mean()


def train_autoencoder(
    recogniser: Recogniser, data: SceneSet, config: TrainingConfig, seed: int, folder: Path
) -> tuple[Autoencoder, float]:
    """A trained autoencoder: close in pixels, in the recogniser's features and in its output."""
    torch.manual_seed(seed)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    recogniser = recogniser.requires_grad_(False).eval()

    def losses(step: int) -> dict[str, Tensor]:
        rows = batch_rows(len(data.scenes), AUTOENCODER_BATCH, seed, step)
        inputs = as_input(data.images[rows]).to(memory_format=torch.channels_last)
        noise = torch.randn(len(rows), LATENT_CHANNELS, 8, 8, generator=torch.Generator().manual_seed(step))
        with autocast():
            latents = model.encoder(inputs)
            share = torch.rand(len(rows), 1, 1, 1, generator=torch.Generator().manual_seed(-step - 1 & 0xFFFFFFFF))
            drawn = model.decoder(latents + NOISE * share * noise)
            with torch.no_grad():
                target_features = recogniser.features(inputs[:NUM_RECOGNISED])
            features = recogniser.features(drawn[:NUM_RECOGNISED])
            cell_logits = recogniser.cells(features[-1])
        latents, drawn = latents.float(), drawn.float()
        likeness = sum(F.mse_loss(one.float(), two.float()) / two.float().square().mean()
                       for one, two in zip(features, target_features, strict=True))  # fmt: skip
        assert isinstance(likeness, Tensor), "the recogniser has features"
        cell_terms = cell_losses(cell_logits, data.cells[rows[:NUM_RECOGNISED]])
        return {
            "pixels": F.l1_loss(drawn, inputs) + 2 * F.mse_loss(drawn, inputs),
            "likeness": 0.15 * likeness,
            "reading": 0.02 * torch.stack(list(cell_terms.values())).sum(),
            "moments": 0.1 * _moment_penalty(latents),
        }

    seconds = fit("autoencoder", model, config, losses, folder)
    return model.to(memory_format=torch.contiguous_format), seconds  # the only form that safetensors writes


@torch.no_grad()
def encode_images(model: Autoencoder, images: NDArray[np.uint8], chunk: int = 256) -> Tensor:
    """Latents [n, 16, 8, 8] of pictures [n, 64, 64, 3]."""
    starts = range(0, len(images), chunk)
    return torch.cat([model.encoder(as_input(images[start : start + chunk])) for start in starts])


@torch.no_grad()
def latents_to_images(model: Autoencoder, latents: Tensor, chunk: int = 256) -> NDArray[np.uint8]:
    """Pictures [n, 64, 64, 3] of latents [n, 16, 8, 8]."""
    return as_pictures(torch.cat([model.decoder(part) for part in torch.split(latents, chunk)]))
