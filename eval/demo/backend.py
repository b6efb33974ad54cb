"""What the page asks for, without the page: twin pictures, cosines by slot, and pictures found by text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.cli import UserError
from distill.api import Conditioner, Encoder, load_conditioner, load_student
from eval.datasets.benchmark import IMAGE_ENDINGS
from eval.generation.pipeline import Drawing, Pipeline, check_fit, draw, load_pipeline, noise, own_conditioner, pictures
from eval.retrieval.features import image_features
from eval.retrieval.models import load_image_tower

MOST_PICTURES = 2000


@dataclass(frozen=True)
class Twins:
    """Pictures [h, w, 3] from one noise; cosine of the states by slot; how many tokens of the prompt were cut."""

    teacher: NDArray[np.uint8]
    student: NDArray[np.uint8]
    cosine: list[float]
    cut: int


@dataclass(frozen=True)
class Painter:
    """A pipeline with its own encoder and with a student's."""

    pipeline: Pipeline
    teacher: Conditioner
    student: Conditioner

    def draw(self, prompt: str, english: str, seed: int, how: Drawing) -> Twins:
        """`english` under the teacher and `prompt` under the student, from the noise of `seed`."""
        start = noise(self.pipeline, [seed])
        drawn, states = [], []
        for conditioner, text in ((self.teacher, english), (self.student, prompt)):
            states.append(conditioner.states([text]))
            path = draw(self.pipeline, start, states[-1], conditioner.states([""]), how)
            drawn.append(pictures(self.pipeline, path.latents[-1])[0])
        cosine = torch.cosine_similarity(states[0], states[1], dim=-1)[0].tolist()
        tokens = len(self.student.tokenizer(prompt, verbose=False).input_ids)
        return Twins(drawn[0], drawn[1], cosine, max(0, tokens - self.student.slots))


@dataclass(frozen=True)
class Album:
    """Pictures with their features [pictures, dim] in the space of the teacher's CLIP, and the student that asks."""

    paths: tuple[Path, ...]
    features: NDArray[np.float32]
    student: Encoder

    def search(self, text: str, count: int = 12) -> list[tuple[Path, float]]:
        """The nearest pictures with their cosines, nearest first."""
        cosines = self.features @ self.student.encode([text])[0]
        order = np.argsort(-cosines, kind="stable")[:count]
        return [(self.paths[place], float(cosines[place])) for place in order]


def load_painter(pipeline: str, student: str, device: torch.device) -> Painter:
    """Both encoders beside one UNet; a student that does not fit it raises UserError."""
    whole, conditioner = load_pipeline(pipeline, device), load_conditioner(student, "--student", device=device)
    check_fit(conditioner, whole, (student, pipeline))
    return Painter(whole, own_conditioner(whole), conditioner)


def load_album(folder: Path, clip: str, student: str, device: torch.device) -> Album:
    """The first pictures below `folder`, by name, through the image tower of `clip`."""
    if not folder.is_dir():
        raise UserError(
            f"--pictures {folder}: no such folder; give one of pictures, or run scripts/quickstart.py first"
        )
    paths = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)[:MOST_PICTURES])
    if not paths:
        raise UserError(f"--pictures {folder}: no pictures in it ({', '.join(sorted(IMAGE_ENDINGS))})")
    tower = load_image_tower(clip, "--clip", torch.float32, device)
    encoder = load_student(student, device, "--student")
    found = image_features(tower, [str(path) for path in paths], _bytes, "crop")
    if found.shape[1] != encoder.model.text_projection.out_features:
        raise UserError(f"--student {student}: its features have another width than those of --clip {clip}")
    return Album(paths, found, encoder)


def _bytes(name: str) -> bytes:
    return Path(name).read_bytes()


def agreement(cosine: Sequence[float]) -> str:
    """One line on the cosines by slot."""
    mean, low = sum(cosine) / len(cosine), min(cosine)
    return f"cosine of the states: mean {mean:.3f}, lowest {low:.3f} at slot {list(cosine).index(low)}"
