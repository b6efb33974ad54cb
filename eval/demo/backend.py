"""The computations behind the page: pairs of pictures, cosines by position, and image search by text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data.cli import UserError
from distill.api import TextEncoder, load_student
from eval.gan.networks import NOISE_DIM, TrainedGenerator, draw_texts, load_trained_generator
from eval.gan.train import SHEET_COLUMNS, sample_sheet
from eval.generation.pipeline import (
    Pipeline,
    SamplingConfig,
    check_student_fit,
    decode_latents,
    encode_text,
    load_pipeline,
    load_prompt_encoder,
    pipeline_text_encoder,
    sample,
    seeded_noise,
    unconditional_text,
)
from eval.pictures import PictureFeatures, Tick, folder_features, ignore, picture_paths
from eval.retrieval.images import ImageTower, load_image_tower

MAX_IMAGES = 2000


@dataclass(frozen=True)
class ImagePair:
    """Pictures [h, w, 3] from one noise; cosine of the states by position; how many tokens of the prompt were cut.

    `read` is what the student understood, in English, where it has a decoder.
    """

    teacher: NDArray[np.uint8]
    student: NDArray[np.uint8]
    cosine: list[float]
    cut: int
    read: str | None


@dataclass(frozen=True)
class ImageGenerator:
    """A pipeline with its own text encoder and a student's."""

    pipeline: Pipeline
    teacher: TextEncoder
    student: TextEncoder

    def generate(self, prompt: str, english: str, seed: int, sampling: SamplingConfig) -> ImagePair:
        """`english` under the teacher and `prompt` under the student, from the noise of `seed`."""
        start = seeded_noise(self.pipeline, [seed])
        images, texts = [], []
        for text_encoder, text in ((self.teacher, english), (self.student, prompt)):
            texts.append(encode_text(text_encoder, [text]))
            away = unconditional_text(self.pipeline, encode_text(text_encoder, [""]))
            path = sample(self.pipeline, start, texts[-1], away, sampling)
            images.append(decode_latents(self.pipeline, path.latents[-1])[0])
        cosine = torch.cosine_similarity(texts[0].states, texts[1].states, dim=-1)[0].tolist()
        tokens = len(self.student.tokenizer(prompt, verbose=False).input_ids)
        read = self.student.read_back(prompt) if self.student.reader else None
        return ImagePair(images[0], images[1], cosine, max(0, tokens - self.student.max_length), read)


@dataclass(frozen=True)
class SheetGenerator:
    """A conditional GAN with the encoders whose text vectors it reads."""

    trained: TrainedGenerator
    teacher: TextEncoder
    student: TextEncoder

    def generate(self, prompt: str, english: str, seed: int) -> list[Image.Image]:
        """Sheets of `english` under the teacher and of `prompt` under the student, from the same noises."""
        noise = torch.randn(SHEET_COLUMNS, NOISE_DIM, generator=torch.Generator().manual_seed(seed))
        return [
            sample_sheet(draw_texts(self.trained, encoder, [text] * SHEET_COLUMNS, noise))
            for encoder, text in ((self.teacher, english), (self.student, prompt))
        ]


@dataclass(frozen=True)
class ImageSearch:
    """The image tower of the teacher's CLIP, and the student, which encodes queries in its space."""

    tower: ImageTower
    student: TextEncoder

    def read(self, folder: Path, tick: Tick = ignore) -> PictureFeatures:
        """The first MAX_IMAGES pictures below `folder`, by name; `tick` as in `folder_features`."""
        paths = picture_paths(folder, "--pictures")[:MAX_IMAGES]
        return folder_features(self.tower, paths, f"--pictures {folder}", tick)

    def find(self, text: str, pictures: PictureFeatures, count: int = 12) -> list[tuple[Path, float]]:
        """The nearest pictures with their cosines, nearest first."""
        cosines = pictures.features @ self.student.encode([text])[0]
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(pictures.paths[index], float(cosines[index])) for index in order]


def load_generator(
    source: str, student: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> ImageGenerator:
    """The pipeline `source` with both encoders; UserError for a student that does not fit its UNet."""
    pipeline = load_pipeline(source, device, dtype)
    student_encoder = load_prompt_encoder(student, "--student", dtype, device)
    check_student_fit(student_encoder, pipeline, (student, source))
    return ImageGenerator(pipeline, pipeline_text_encoder(pipeline), student_encoder)


def load_image_search(clip: str, student: str, device: torch.device) -> ImageSearch:
    """The image tower of `clip` and the student; UserError for features of two widths."""
    tower, encoder = load_image_tower(clip, "--clip", torch.float32, device), load_student(student, device, "--student")
    if tower.model.config.projection_dim != encoder.feature_dim:
        raise UserError(f"--student {student}: its features have another width than those of --clip {clip}")
    return ImageSearch(tower, encoder)


def load_sheet_generator(gan: Path, clip: str, student: TextEncoder) -> SheetGenerator | None:
    """The conditional GAN of a folder; None where its text vectors have another width than the student's."""
    trained = load_trained_generator(gan, "--gan")
    if trained.config.kind != "conditional" or trained.config.text_dim != student.feature_dim:
        return None
    return SheetGenerator(trained, load_student(clip, key="--clip"), student)


def cosine_summary(cosine: Sequence[float]) -> str:
    """One line on the cosines by position."""
    mean, low = sum(cosine) / len(cosine), min(cosine)
    return f"cosine of the states: mean {mean:.3f}, lowest {low:.3f} at position {list(cosine).index(low)}"
