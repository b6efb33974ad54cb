"""The whole comparison: same-seed pictures under teacher and student, and what is measured on them.

How far twins are apart: pure functions of pictures, latents and predictions, one value a picture.
"""

from collections.abc import Callable
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
    decode_latents,
    make_solver,
    sample,
    seeded_noise,
)
from eval.generation.prompts import Prompt
from eval.generation.recogniser import RecognisedScene, match_scene
from eval.metrics import Values, mean_interval

LIMIT_DB = 99.0  # PSNR of equal pictures, so that means stay finite


def psnr(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> Values:
    """Peak signal-to-noise ratio [n] in dB of bytes [n, h, w, 3]; at most 99."""
    error = np.square(pictures.astype(np.float64) - others).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        found: Values = np.minimum(LIMIT_DB, 10 * np.log10(255**2 / error))
    return found


def latent_distances(path: Trajectory, other: Trajectory) -> Values:
    """[n, steps]: after each step, the length of the difference of the latents by the length of `path`'s latents."""
    difference = (path.latents - other.latents)[1:].flatten(2).norm(dim=2)
    norm = path.latents[1:].flatten(2).norm(dim=2)
    found: Values = (difference / norm).T.double().cpu().numpy()
    return found


def squared_norm_ratio(error: Tensor, unit: Tensor) -> Values:
    """[n]: squared length of error [n, ...] by that of unit [n, ...]."""
    found: Values = (error.flatten(1).square().sum(1) / unit.flatten(1).square().sum(1)).double().cpu().numpy()
    return found


@torch.no_grad()
def prediction_errors(
    pipeline: Pipeline, path: Trajectory, states: dict[str, Tensor], teacher: str, empty: str, probes: int
) -> dict[str, Values]:
    """What each conditioning predicts on the teacher's own path, against what the teacher's does, [n] each.

    0 is the teacher's prediction, 1 is as far from it as that for the teacher's empty prompt. Ratios are taken at
    `probes` steps spread over the path and averaged; they are the same for a UNet that predicts noise or velocity.
    """
    steps = make_solver(pipeline, len(path.times))
    errors: dict[str, list[Values]] = {name: [] for name in states}
    for step in np.linspace(0, len(path.times) - 1, probes).round().astype(int):
        time = path.times[step]
        scaled_latents = steps.scale_model_input(path.latents[step], time)
        predicted = {
            name: pipeline.unet(scaled_latents, time, each.expand(len(scaled_latents), -1, -1)).sample
            for name, each in states.items()
        }
        unit = predicted[empty] - predicted[teacher]
        for name, each in predicted.items():
            errors[name].append(squared_norm_ratio(each - predicted[teacher], unit))
    return {name: np.mean(values, axis=0) for name, values in errors.items()}


TEACHER, TEACHER_EMPTY, TEACHER_WRONG, STUDENT_EMPTY = "teacher-en", "teacher-empty", "teacher-wrong", "student-empty"
NUM_PROBE_STEPS = 4  # steps at which predictions are compared
Recognise = Callable[[NDArray[np.uint8]], list[RecognisedScene]]


@dataclass(frozen=True)
class GenerationComparison:
    """Values [prompts, seeds] by measure and conditioning, pictures of the first seed, and distance by step."""

    values: dict[str, dict[str, Values]]
    pictures: dict[str, NDArray[np.uint8]]
    by_step: dict[str, list[float]]


def conditioning_states(
    prompts: list[Prompt], teacher: TextEncoder, student: TextEncoder, floor: bool
) -> dict[str, Tensor]:
    """States [prompts, slots, d] by name; `floor` adds the teacher reading Chinese."""
    english, chinese = [prompt.en for prompt in prompts], [prompt.zh for prompt in prompts]
    states = {
        TEACHER: teacher.states(english),
        "student-en": student.states(english),
        "student-zh": student.states(chinese),
    }
    mixed = [prompt.mixed for prompt in prompts]
    if all(mixed):
        states["student-mixed"] = student.states([text or "" for text in mixed])
    if floor:
        states["teacher-zh"] = teacher.states(chinese)
    return states


def compare_generations(
    pipeline: Pipeline, teacher: TextEncoder, student: TextEncoder, prompts: list[Prompt], seeds: int,
    sampling: SamplingConfig, recognise: Recognise | None, shown: int = 8, floor: bool = False,
) -> GenerationComparison:  # fmt: skip
    """Draw every prompt from `seeds` noises under every conditioning and measure; `read` needs prompts with scenes."""
    shown, states = min(shown, len(prompts)), conditioning_states(prompts, teacher, student, floor)
    empty = {TEACHER: teacher.states([""]), "student": student.states([""])}
    cases = [(row, seed) for seed in range(seeds) for row in range(len(prompts))]
    by_measure: dict[str, dict[str, list[Values]]] = {}
    shown_images: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in states}

    def add(measure: str, name: str, values: Values) -> None:
        by_measure.setdefault(measure, {}).setdefault(name, []).append(values)

    for start in tqdm(range(0, len(cases), sampling.batch), desc="pictures", mininterval=2):
        batch = cases[start : start + sampling.batch]
        rows = torch.tensor([row for row, _ in batch])
        initial_noise = seeded_noise(pipeline, [seed * 1_000_003 + row for row, seed in batch])
        paths, images = {}, {}
        for name, conditioning in states.items():
            empty_states = empty[TEACHER if name.startswith("teacher") else "student"]
            paths[name] = sample(pipeline, initial_noise, conditioning[rows], empty_states, sampling)
            images[name] = decode_latents(pipeline, paths[name].latents[-1])
            missing = shown - sum(map(len, shown_images[name]))
            shown_images[name].append(images[name][: max(0, missing)])
            if recognise is not None:
                _add_recognition(add, name, [prompts[row] for row, _ in batch], recognise(images[name]))
            if name != TEACHER:
                add("psnr", name, psnr(images[TEACHER], images[name]))
                add("latent_distance", name, latent_distances(paths[TEACHER], paths[name]))
        probe_states = {name: each[rows] for name, each in states.items()}
        probe_states |= {TEACHER_EMPTY: empty[TEACHER], STUDENT_EMPTY: empty["student"]}
        probe_states[TEACHER_WRONG] = states[TEACHER][(rows + 1) % len(prompts)]
        for name, errors_per_image in prediction_errors(
            pipeline, paths[TEACHER], probe_states, TEACHER, TEACHER_EMPTY, NUM_PROBE_STEPS
        ).items():
            add("prediction_error", name, errors_per_image)
        empty_probe_states = {
            TEACHER: probe_states[TEACHER],
            TEACHER_EMPTY: probe_states[TEACHER_EMPTY],
            "student": probe_states[STUDENT_EMPTY],
        }
        errors = prediction_errors(
            pipeline, paths[TEACHER], empty_probe_states, TEACHER_EMPTY, TEACHER, NUM_PROBE_STEPS
        )
        add("empty_prompt_error", "student", errors["student"])
    by_step = {name: np.concatenate(each).mean(0).tolist() for name, each in by_measure["latent_distance"].items()}
    by_measure["latent_distance"] = {
        name: [np.concatenate(each)[:, -1]] for name, each in by_measure["latent_distance"].items()
    }
    values = {
        measure: {name: np.concatenate(each).reshape(seeds, -1).T for name, each in named.items()}
        for measure, named in by_measure.items()
    }
    return GenerationComparison(values, {name: np.concatenate(each) for name, each in shown_images.items()}, by_step)


def _add_recognition(
    add: Callable[[str, str, Values], None], name: str, prompts: list[Prompt], readings: list[RecognisedScene]
) -> None:
    """What the recogniser says of pictures whose truth is known."""
    matches = [
        match_scene(prompt.scene, reading) for prompt, reading in zip(prompts, readings, strict=True) if prompt.scene
    ]
    add("things", name, np.array([one.num_matched / one.num_things for one in matches]))
    for field in ("exact", "counts", "sizes", "relations", "background", "all_but_size"):
        add(f"read_{field}", name, np.array([float(getattr(one, field)) for one in matches]))


def summarise(comparison: GenerationComparison) -> dict[str, Any]:
    """Means with intervals by measure and conditioning, the share of the teacher's reading rate, distance by step."""
    report: dict[str, Any] = {}
    for measure, named in comparison.values.items():
        report[measure] = {}
        for name, values in named.items():
            low, high = mean_interval(values.mean(1))
            report[measure][name] = {"mean": round(float(values.mean()), 5), "ci95": [round(low, 5), round(high, 5)]}
    report["latent_distance_by_step"] = {name: [round(x, 5) for x in each] for name, each in comparison.by_step.items()}
    for measure in ("things", "read_exact", "read_all_but_size"):
        if measure in report and report[measure][TEACHER]["mean"] > 0:
            best = report[measure][TEACHER]["mean"]
            share = {name: round(each["mean"] / best, 5) for name, each in report[measure].items() if name != TEACHER}
            report[f"{measure}_share_of_teacher"] = share
    return report
