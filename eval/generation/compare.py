"""Same-seed pictures under teacher and student, and the measures on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from distill.api import TextEncoder
from eval.generation.pipeline import (
    Pipeline,
    SamplingConfig,
    Trajectory,
    UnetText,
    decode_latents,
    encode_text,
    images_at_once,
    make_solver,
    noise_seed,
    predict,
    sample,
    seeded_noise,
    unconditional_text,
)
from eval.generation.prompts import Prompt
from eval.generation.recogniser import RecognisedScene, SceneMatch, match_scene
from eval.metrics import Values, mean_interval

LIMIT_DB = 99.0  # PSNR of equal pictures, so that means stay finite
NUM_PROBE_STEPS = 4  # steps at which predictions are compared
TEACHER, TEACHER_EMPTY, TEACHER_WRONG, STUDENT_EMPTY = "teacher-en", "teacher-empty", "teacher-wrong", "student-empty"
Recognise = Callable[[NDArray[np.uint8]], list[RecognisedScene]]
Measures = dict[str, dict[str, Values]]
"""Values by measure and conditioning."""


@dataclass(frozen=True)
class GenerationSetup:
    """One UNet, two encoders, and maybe a recogniser of what the pictures show."""

    pipeline: Pipeline
    teacher: TextEncoder
    student: TextEncoder
    sampling: SamplingConfig
    recognise: Recognise | None = None


@dataclass(frozen=True)
class Conditioning:
    """Prompts, the empty prompt of the same encoder, and what guidance leads away from: the latter, or zeros."""

    text: UnetText
    empty: UnetText
    unconditional: UnetText


@dataclass(frozen=True)
class GenerationComparison:
    """Values [prompts, seeds] by measure and conditioning, pictures of the first seed, and latent distance by step."""

    values: Measures
    pictures: dict[str, NDArray[np.uint8]]
    by_step: dict[str, list[float]]


def compare_generations(
    setup: GenerationSetup, prompts: Sequence[Prompt], seeds: int, shown: int = 8, floor: bool = False
) -> GenerationComparison:
    """Generate and measure every prompt from `seeds` noises under every conditioning.

    Pictures of the first `shown` prompts are kept; `floor` adds the teacher with the Chinese prompts. Prompts need
    scenes where the setup has a recogniser.
    """
    conditionings = make_conditionings(setup, prompts, floor)
    cases = [(row, seed) for seed in range(seeds) for row in range(len(prompts))]
    batch_size = images_at_once(setup.pipeline, setup.sampling)
    batches: list[Measures] = []
    kept: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in conditionings}
    for start in tqdm(range(0, len(cases), batch_size), desc="pictures", mininterval=2):
        batch = cases[start : start + batch_size]
        rows = [row for row, _ in batch]
        noise = seeded_noise(setup.pipeline, [noise_seed(row, seed) for row, seed in batch])
        trajectories = {
            name: sample(setup.pipeline, noise, each.text.rows(rows), each.unconditional, setup.sampling)
            for name, each in conditionings.items()
        }
        images = {name: decode_latents(setup.pipeline, path.latents[-1]) for name, path in trajectories.items()}
        measures = measure_scenes(setup.recognise, [prompts[row] for row in rows], images)
        measures |= measure_images(images, trajectories)
        batches.append(measures | measure_predictions(setup.pipeline, trajectories[TEACHER], conditionings, rows))
        for name, pictures in images.items():
            kept[name].append(pictures[: max(0, min(shown, len(prompts)) - start)])
    values = {
        measure: {name: np.concatenate([measures[measure][name] for measures in batches]) for name in by_name}
        for measure, by_name in batches[0].items()
    }
    by_step = {name: distances.mean(0).tolist() for name, distances in values["latent_distance"].items()}
    values["latent_distance"] = {name: distances[:, -1] for name, distances in values["latent_distance"].items()}
    return GenerationComparison(
        {m: {name: each.reshape(seeds, -1).T for name, each in by_name.items()} for m, by_name in values.items()},
        {name: np.concatenate(pictures) for name, pictures in kept.items()},
        by_step,
    )


def prompt_texts(prompts: Sequence[Prompt], floor: bool = False) -> dict[str, list[str]]:
    """The texts by conditioning, SIDE-LANGUAGE, the teacher's English first; mixed where every prompt has it."""
    english, chinese = [prompt.en for prompt in prompts], [prompt.zh for prompt in prompts]
    texts = {TEACHER: english, "student-en": english, "student-zh": chinese}
    mixed = [prompt.mixed for prompt in prompts if prompt.mixed]
    if len(mixed) == len(prompts):
        texts["student-mixed"] = mixed
    if floor:
        texts["teacher-zh"] = chinese
    return texts


def make_conditionings(setup: GenerationSetup, prompts: Sequence[Prompt], floor: bool) -> dict[str, Conditioning]:
    """The conditionings by name, the teacher's English first."""
    encoders = {"teacher": setup.teacher, "student": setup.student}
    empty = {side: encode_text(encoder, [""]) for side, encoder in encoders.items()}
    away = {side: unconditional_text(setup.pipeline, text) for side, text in empty.items()}
    sides = {name: (name.split("-")[0], texts) for name, texts in prompt_texts(prompts, floor).items()}
    return {
        name: Conditioning(encode_text(encoders[side], texts), empty[side], away[side])
        for name, (side, texts) in sides.items()
    }


def measure_scenes(
    recognise: Recognise | None, prompts: Sequence[Prompt], images: Mapping[str, NDArray[np.uint8]]
) -> Measures:
    """Whether the pictures show the prompts' scenes, [n] each."""
    if recognise is None:
        return {}
    scenes = [prompt.scene for prompt in prompts if prompt.scene is not None]
    matches = {
        name: [match_scene(scene, recognised) for scene, recognised in zip(scenes, recognise(pictures), strict=True)]
        for name, pictures in images.items()
    }
    measures = {
        f"read_{field}": {name: np.array([float(getattr(one, field)) for one in row]) for name, row in matches.items()}
        for field in SceneMatch.FIELDS
    }
    things = {name: np.array([one.num_matched / one.num_things for one in row]) for name, row in matches.items()}
    return {"things": things, **measures}


def measure_images(images: Mapping[str, NDArray[np.uint8]], trajectories: Mapping[str, Trajectory]) -> Measures:
    """PSNR [n] and latent distances [n, steps] to the teacher's English."""
    others = [name for name in images if name != TEACHER]
    return {
        "psnr": {name: psnr(images[TEACHER], images[name]) for name in others},
        "latent_distance": {name: latent_distances(trajectories[TEACHER], trajectories[name]) for name in others},
    }


def psnr(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> Values:
    """Peak signal-to-noise ratio [n] in dB of bytes [n, h, w, 3]; at most 99."""
    error = np.square(pictures.astype(np.float64) - others).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        ratio: Values = np.minimum(LIMIT_DB, 10 * np.log10(255**2 / error))
    return ratio


def latent_distances(path: Trajectory, other: Trajectory) -> Values:
    """[n, steps]: after each step, the norm of the difference of the latents over the norm of `path`'s latents."""
    difference = (path.latents - other.latents)[1:].flatten(2).norm(dim=2)
    norm = path.latents[1:].flatten(2).norm(dim=2)
    distances: Values = (difference / norm).T.double().cpu().numpy()
    return distances


def measure_predictions(
    pipeline: Pipeline, path: Trajectory, conditionings: Mapping[str, Conditioning], rows: Sequence[int]
) -> Measures:
    """Prediction errors [n] on the teacher's path of prompts `rows`, and the empty prompts' own."""
    teacher = conditionings[TEACHER]
    next_prompt = [(row + 1) % len(teacher.text) for row in rows]
    texts = {name: conditioning.text.rows(rows) for name, conditioning in conditionings.items()}
    empty = {TEACHER_EMPTY: teacher.empty, STUDENT_EMPTY: conditionings["student-zh"].empty}
    probed = texts | empty | {TEACHER_WRONG: teacher.text.rows(next_prompt)}
    errors = prediction_errors(pipeline, path, probed, TEACHER, TEACHER_EMPTY, NUM_PROBE_STEPS)
    empty_texts = {TEACHER: texts[TEACHER], **empty}
    empty_errors = prediction_errors(pipeline, path, empty_texts, TEACHER_EMPTY, TEACHER, NUM_PROBE_STEPS)
    return {"prediction_error": errors, "empty_prompt_error": {"student": empty_errors[STUDENT_EMPTY]}}


@torch.no_grad()
def prediction_errors(
    pipeline: Pipeline, path: Trajectory, texts: Mapping[str, UnetText], reference: str, unit: str, probes: int
) -> dict[str, Values]:
    """Squared distance [n] of each conditioning's prediction from that of `reference`, on the latents of `path`.

    It is relative to the distance between the predictions of `unit` and `reference`, at `probes` steps spread over the
    path, averaged; the same for a UNet that predicts noise or velocity.
    """
    solver = make_solver(pipeline, len(path.times))
    errors: dict[str, list[Values]] = {name: [] for name in texts}
    for step in np.linspace(0, len(path.times) - 1, probes).round().astype(int):
        time = path.times[step]
        latents = solver.scale_model_input(path.latents[step], time)
        predicted = {name: predict(pipeline, latents, time, text.expand(len(latents))) for name, text in texts.items()}
        for name, prediction in predicted.items():
            error = prediction - predicted[reference]
            errors[name].append(squared_norm_ratio(error, predicted[unit] - predicted[reference]))
    return {name: np.mean(values, axis=0) for name, values in errors.items()}


def squared_norm_ratio(error: Tensor, unit: Tensor) -> Values:
    """[n]: squared norm of error [n, ...] over that of unit [n, ...]."""
    ratio: Values = (error.flatten(1).square().sum(1) / unit.flatten(1).square().sum(1)).double().cpu().numpy()
    return ratio


def summarise(comparison: GenerationComparison) -> dict[str, Any]:
    """Means with intervals by measure and conditioning, latent distance by step, and shares of the teacher's rates.

    Of what students are compared by, `by_prompt` has the mean of each prompt.
    """
    summary: dict[str, Any] = {}
    for measure, by_name in comparison.values.items():
        summary[measure] = {}
        for name, values in by_name.items():
            low, high = mean_interval(values.mean(1))
            summary[measure][name] = {"mean": round(float(values.mean()), 5), "ci95": [round(low, 5), round(high, 5)]}
    summary["latent_distance_by_step"] = {
        name: [round(x, 5) for x in steps] for name, steps in comparison.by_step.items()
    }
    summary["by_prompt"] = {
        measure: {name: values.mean(1).round(5).tolist() for name, values in comparison.values[measure].items()}
        for measure in ("prediction_error", "things")
        if measure in comparison.values
    }
    for measure in ("things", "read_exact", "read_all_but_size"):
        if measure in summary and summary[measure][TEACHER]["mean"] > 0:
            best = summary[measure][TEACHER]["mean"]
            summary[f"{measure}_share_of_teacher"] = {
                name: round(each["mean"] / best, 5) for name, each in summary[measure].items() if name != TEACHER
            }
    return summary
