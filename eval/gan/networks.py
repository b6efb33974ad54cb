"""Generators and discriminators of 64x64 pictures: the DCGAN, one whose noise is a mixture, and one that reads a text.

DCGAN: Radford et al. 2015. Mixture: the same generator with noise from many Gaussians (Gurumurthy et al. 2017), each
round the image vector of a picture (Casanova et al. 2021). The conditional generator takes the text beside the noise
(Reed et al. 2016). The discriminators of both compare picture and vector by a projection (Miyato and Koyama 2018), with
spectral norm (Miyato et al. 2018).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from data.cli import UserError, checked_config, one_line
from data.files import read_json, write_json
from distill.text_encoder import TextEncoder
from eval.generation.recogniser import as_pictures
from eval.miniature.training_loop import save_tensors

Kind = Literal["dcgan", "mixture", "conditional"]
NOISE_DIM = 100
CENTRES, SPREAD = 224, 0.5  # of the mixture: its Gaussians, and the standard deviation of each
TEXT_CHANNELS = 128  # of the text vector beside the noise, as published


@dataclass(frozen=True)
class GanConfig:
    """Shape of a pair of networks: `width` channels at 32x32, eight times as many at 4x4; `text_dim` of the vectors."""

    kind: Kind
    width: int = 24
    text_dim: int = 256

    @property
    def compares(self) -> bool:
        """Whether the discriminator compares pictures with vectors."""
        return self.kind != "dcgan"


def _initialise_weights(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02) and of norms from N(1, 0.02), as published."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)


class Generator(nn.Module):
    """Pictures [n, 3, 64, 64] in -1..1 of noise [n, 100] and of vectors [n, text_dim] of length 1.

    A mixture has noise of mean 0 and variance 1 in all, SPREAD around a vector; `centres` [224, 100] are those to draw.
    """

    centres: Tensor

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        conditional, width = config.kind == "conditional", config.width
        self.text = nn.Sequential(nn.Linear(config.text_dim, TEXT_CHANNELS), nn.LeakyReLU(0.2)) if conditional else None
        if config.kind == "mixture":
            self.register_buffer("centres", torch.zeros(CENTRES, NOISE_DIM))
        channels = [NOISE_DIM + TEXT_CHANNELS * conditional, 8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(channels):
            stride, padding = (2, 1) if layers else (1, 0)  # the first one makes 4x4 of 1x1
            layers.append(nn.ConvTranspose2d(inner, outer, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(outer), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())
        self.layers.apply(_initialise_weights)

    def forward(self, noise: Tensor, vectors: Tensor | None = None) -> Tensor:
        """One picture for each row of noise."""
        if self.text is not None:
            assert vectors is not None, "a conditional generator reads text"
            noise = torch.cat([noise, self.text(_scaled(vectors))], dim=1)
        elif vectors is not None:
            noise = sqrt(1 - SPREAD**2) * _scaled(vectors) + SPREAD * noise
        pictures: Tensor = self.layers(noise[:, :, None, None])
        return pictures


def _scaled(vectors: Tensor) -> Tensor:
    """Vectors of length 1 with entries as large as those of the noise."""
    return vectors * sqrt(vectors.shape[1])


class Discriminator(nn.Module):
    """Judges pictures [n, 3, 64, 64]: real or drawn; but for a DCGAN's, real and of the vector [n, text_dim] or not."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.compares, width = config.compares, config.width
        layers: list[nn.Module] = []
        for inner, outer in pairwise([3, width, 2 * width, 4 * width, 8 * width]):
            convolution = nn.Conv2d(inner, outer, 4, 2, 1)
            layers.append(spectral_norm(convolution) if self.compares else convolution)
            if not self.compares and inner > 3:  # as published, no norm on the first layer
                layers.append(nn.BatchNorm2d(outer))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        self.layers.apply(_initialise_weights)
        if self.compares:
            self.logit: nn.Module = spectral_norm(nn.Linear(8 * width, 1))
            self.projection = spectral_norm(nn.Linear(config.text_dim, 8 * width, bias=False))
        else:
            self.logit = nn.Conv2d(8 * width, 1, 4)
            _initialise_weights(self.logit)

    def forward(self, pictures: Tensor, *vectors: Tensor) -> list[Tensor]:
        """The logits [n] of the pictures, or those under each of the `vectors`; the pictures are read once."""
        features = self.layers(pictures)
        if not self.compares:
            return [self.logit(features).flatten().float()]
        pooled = features.float().sum((2, 3))
        plain = self.logit(pooled)[:, 0].float()
        return [plain + (self.projection(_scaled(each)).float() * pooled).sum(1) for each in vectors]


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator, in evaluation mode and fp32, with its shape."""

    generator: Generator
    config: GanConfig

    @torch.no_grad()
    def draw(self, noise: Tensor, vectors: Tensor | None = None, chunk: int = 256) -> NDArray[np.uint8]:
        """Pictures [n, 64, 64, 3] of noise [n, 100] and vectors [n, text_dim], by default a mixture's centres."""
        if vectors is None and self.config.kind == "mixture":
            vectors = self.generator.centres[torch.arange(len(noise)) % CENTRES]
        split: Sequence[Tensor | None] = [None] * len(noise) if vectors is None else torch.split(vectors, chunk)
        parts = [self.generator(rows, each) for rows, each in zip(torch.split(noise, chunk), split, strict=False)]
        return as_pictures(torch.cat(parts))


def save_generator(trained: TrainedGenerator, folder: Path) -> None:
    """Write config.json and the weights in fp16."""
    state = trained.generator.state_dict()
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_tensors(half, folder / "model.safetensors", {"format": "pt"})
    write_json(asdict(trained.config), folder / "config.json")


def load_trained_generator(folder: Path, option: str = "--model") -> TrainedGenerator:
    """The generator of a folder that `save_generator` or a training wrote; UserError for anything else."""
    path, fix = folder / "model.safetensors", "give a folder that python -m eval.gan train wrote"
    if not path.is_file():
        raise UserError(f"{option} {folder}: no model.safetensors; {fix}")
    config = checked_config(read_json(folder / "config.json"), GanConfig, f"{folder / 'config.json'}: ")
    generator = Generator(config)
    try:
        generator.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path}: not the weights of its config.json ({one_line(error)}); {fix}") from error
    return TrainedGenerator(generator.float().eval(), config)


def check_text_width(encoder: TextEncoder, trained: TrainedGenerator, option: str) -> None:
    """Raise UserError unless the generator reads text, in vectors as wide as the encoder's; `option` named it."""
    config = trained.config
    if config.kind != "conditional":
        raise UserError(f"--model: a {config.kind} reads no text; name a conditional generator")
    if encoder.feature_dim != config.text_dim:
        raise UserError(f"{option}: vectors of width {encoder.feature_dim}; the generator reads {config.text_dim}")


def draw_texts(
    trained: TrainedGenerator, encoder: TextEncoder, texts: Sequence[str], noise: Tensor
) -> NDArray[np.uint8]:
    """Pictures [n, 64, 64, 3] of n texts under n rows of noise."""
    return trained.draw(noise, torch.from_numpy(encoder.encode(texts)))
