"""Alternating training of a generator and its discriminator on pictures of the miniature; resumes bit for bit.

All: two learning rates (Heusel et al. 2017), an average of the generator's weights (Yazici et al. 2019). DCGAN: the
published non-saturating loss, with one-sided label smoothing (Salimans et al. 2016). Conditional and mixture: hinge
loss (Lim and Ye 2017) on the three pairs of Reed et al. 2016, of which (wrong vector, real picture) teaches that the
vector matters. They start close to the real picture of the same vector (L1, Isola et al. 2017), whose weight falls to
nothing, so that the rest is adversarial alone.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format
from tqdm import tqdm
from transformers import CLIPModel

from data.miniature import ASSETS
from distill.train.metrics import MetricsFile
from eval.gan.networks import (
    CENTRES,
    NOISE_DIM,
    Discriminator,
    GanConfig,
    Generator,
    TrainedGenerator,
    save_generator,
)
from eval.generation.recogniser import as_input
from eval.miniature.dataset import batch_rows
from eval.miniature.train_clip import clip_image_features
from eval.miniature.training_loop import TrainingConfig, TrainState, autocast, save_tensors

SHOWN, SHEET_COLUMNS = 64, 8  # pictures of a sample sheet
Score = Callable[[TrainedGenerator], dict[str, float]]


@dataclass(frozen=True)
class GanTraining:
    """Length and settings of a training; `wrong_pairs` shows the discriminator real pictures under another's vector.

    `l1` is the weight of the distance from the real picture of the vector; it falls to nothing within `l1_steps`.
    """

    steps: int
    batch_size: int = 64
    generator_lr: float = 1e-3
    discriminator_lr: float = 5e-4
    wrong_pairs: bool = True
    l1: float = 0.0
    l1_steps: int = 1
    seed: int = 0
    sample_every: int = 100
    save_seconds: float = 90.0


@dataclass(frozen=True)
class TrainingImages:
    """Pictures [n, 64, 64, 3] and, but for a DCGAN, the vector [n, text_dim] of each and what this is of: a caption or
    the picture's number."""

    images: NDArray[np.uint8]
    sources: Sequence[str | int] = ()
    vectors: Tensor | None = None


def wrong_rows(sources: Sequence[str | int]) -> list[int]:
    """For each row of a batch the next row with another source: its vector is wrong for the picture of this row."""
    number = len(sources)
    return [
        next(other % number for other in range(row + 1, row + number) if sources[other % number] != sources[row])
        for row in range(number)
    ]


def image_vectors(images: NDArray[np.uint8]) -> Tensor:
    """Unit vectors [n, 100] of pictures [n, 64, 64, 3]: the first principal components of the teacher's."""
    clip: Any = CLIPModel.from_pretrained(ASSETS / "clip")
    features = clip_image_features(clip.eval(), images)
    features -= features.mean(0)
    return F.normalize(features @ torch.linalg.svd(features, full_matrices=False).Vh[:NOISE_DIM].T)


def hinge_loss(real: Tensor, drawn: Tensor, *wrong: Tensor) -> Tensor:
    """Of the logits [n] of real and drawn pictures and, half of the false ones, of real ones under a wrong text."""
    false = [F.relu(1 + logits).mean() for logits in (drawn, *wrong)]
    return F.relu(1 - real).mean() + torch.stack(false).mean()


def log_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Of the logits [n] of real and drawn pictures, as published; the real ones are to be told at 0.9."""
    return F.softplus(-real).mean() + 0.1 * real.mean() + F.softplus(drawn).mean()


class GanTrainer:
    """Both networks with their optimizers; one step is a pure function of (state, seed, step)."""

    def __init__(self, config: GanConfig, training: GanTraining, data: TrainingImages) -> None:
        torch.manual_seed(training.seed)
        self.config, self.training, self.data = config, training, data
        self.generator, self.discriminator = Generator(config), Discriminator(config)
        if config.kind == "mixture":
            assert data.vectors is not None, "a mixture needs centres"
            self.generator.centres.copy_(data.vectors[torch.arange(CENTRES) % len(data.vectors)])
        self.states = {
            name: TrainState(
                convert_conv2d_weight_memory_format(network, torch.channels_last),
                TrainingConfig(training.steps, rate, warmup=1, decay=0.0, ema=0.995, clip=100.0, betas=(0.5, 0.99)),
            )
            for name, network, rate in (
                ("generator", self.generator, training.generator_lr),
                ("discriminator", self.discriminator, training.discriminator_lr),
            )
        }

    def step(self, step: int) -> dict[str, Tensor]:
        """One update of the discriminator, then one of the generator; the loss of each."""
        training, compares = self.training, self.config.compares
        random = torch.Generator().manual_seed(training.seed * 10**9 + step)
        rows = batch_rows(len(self.data.images), training.batch_size, training.seed, step)
        vectors = self.vectors(rows)
        real = as_input(self.data.images[rows]).contiguous(memory_format=torch.channels_last)
        noise = torch.randn(len(rows), NOISE_DIM, generator=random)

        with autocast():
            drawn = self.generator(noise, *vectors[:1]).float()
            right, *wrong = self.discriminator(real, *vectors)
            false = self.discriminator(drawn.detach(), *vectors[:1])[0]
        told_apart = hinge_loss(right, false, *wrong) if compares else log_loss(right, false)
        self.states["discriminator"].update(told_apart)
        self.discriminator.requires_grad_(False)
        with autocast():
            logits = self.discriminator(drawn, *vectors[:1])[0]
        believed = -logits.mean() if compares else F.softplus(-logits).mean()
        nearness = training.l1 * max(0.0, 1 - step / training.l1_steps)
        self.states["generator"].update(believed + nearness * F.l1_loss(drawn, real) if nearness else believed)
        self.discriminator.requires_grad_(True)
        return {"discriminator": told_apart.detach(), "generator": believed.detach()}

    def vectors(self, rows: NDArray[np.intp]) -> list[Tensor]:
        """None, the vectors [n, text_dim] of the rows, or these and wrong ones."""
        if self.data.vectors is None:
            return []
        vectors = [self.data.vectors[rows]]
        if self.training.wrong_pairs:
            vectors.append(vectors[0][wrong_rows([self.data.sources[row] for row in rows])])
        return vectors

    def average(self) -> TrainedGenerator:
        """The average of the generator's weights so far."""
        generator = Generator(self.config)
        generator.load_state_dict(self.states["generator"].ema)
        return TrainedGenerator(generator.eval(), self.config)

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and the average as the finished generator."""
        tensors = {
            f"{name}.{key}": value for name, state in self.states.items() for key, value in state.tensors().items()
        }
        save_tensors(tensors, folder / "state.safetensors", {})
        save_generator(self.average(), folder)

    def load(self, path: Path) -> int:
        """Restore a checkpoint; the number of steps that are done."""
        tensors = load_file(path)
        for name, state in self.states.items():
            state.load({key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(name)})
        return self.states["generator"].step


def sample_sheet(pictures: NDArray[np.uint8]) -> Image.Image:
    """Pictures [n, h, w, 3] as a sheet of SHEET_COLUMNS."""
    height, width = pictures.shape[1:3]
    tiles = pictures.reshape(-1, SHEET_COLUMNS, height, width, 3).swapaxes(1, 2)
    return Image.fromarray(tiles.reshape(-1, SHEET_COLUMNS * width, 3))


def train_gan(config: GanConfig, training: GanTraining, data: TrainingImages, score: Score, folder: Path) -> float:
    """Train in `folder`, from its checkpoint where it has one; the same call resumes. Returns all its CPU seconds.

    Writes state.safetensors, model.safetensors (the average, fp16) with config.json, metrics.jsonl with the losses and
    the average's `score`, and samples/STEP.png: always of the same noise and vectors.
    """
    trainer, path = GanTrainer(config, training, data), folder / "state.safetensors"
    done = trainer.load(path) if path.is_file() else 0
    state = trainer.states["generator"]
    noise = torch.randn(SHOWN, NOISE_DIM, generator=torch.Generator().manual_seed(training.seed))
    vectors = None if data.vectors is None else data.vectors[torch.arange(SHOWN) % len(data.vectors)]
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    saved, started = time.monotonic(), time.process_time() - state.seconds
    with closing(MetricsFile(folder / "metrics.jsonl", done)) as metrics:
        for step in tqdm(range(done, training.steps), initial=done, total=training.steps, desc=config.kind):
            losses, finished = trainer.step(step), step + 1
            state.seconds = time.process_time() - started
            row: dict[str, float] = {}
            if finished % 50 == 0:
                row |= {name: round(value.item(), 4) for name, value in losses.items()}
            if finished % training.sample_every == 0 or finished == training.steps:
                average = trainer.average()
                sample_sheet(average.draw(noise, vectors)).save(folder / "samples" / f"{finished:06d}.png")
                row |= score(average)
            if row:
                metrics.write(finished, row)
            if finished == training.steps or time.monotonic() - saved > training.save_seconds:
                trainer.save(folder)
                saved = time.monotonic()
    return state.seconds
