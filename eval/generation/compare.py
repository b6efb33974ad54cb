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

from distill.api import Conditioner
from eval.generation.pipeline import Drawing, Path, Pipeline, draw, noise, pictures, scheduler
from eval.generation.prompts import Prompt
from eval.generation.recogniser import Reading, agree
from eval.metrics import Values, mean_interval

LIMIT_DB = 99.0  # PSNR of equal pictures, so that means stay finite


def psnr(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> Values:
    """Peak signal-to-noise ratio [n] in dB of bytes [n, h, w, 3]; at most 99."""
    error = np.square(pictures.astype(np.float64) - others).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        found: Values = np.minimum(LIMIT_DB, 10 * np.log10(255**2 / error))
    return found


def distances(path: Path, other: Path) -> Values:
    """[n, steps]: after each step, the length of the difference of the latents by the length of `path`'s latents."""
    difference = (path.latents - other.latents)[1:].flatten(2).norm(dim=2)
    whole = path.latents[1:].flatten(2).norm(dim=2)
    found: Values = (difference / whole).T.double().cpu().numpy()
    return found


def ratio(error: Tensor, unit: Tensor) -> Values:
    """[n]: squared length of error [n, ...] by that of unit [n, ...]."""
    found: Values = (error.flatten(1).square().sum(1) / unit.flatten(1).square().sum(1)).double().cpu().numpy()
    return found


@torch.no_grad()
def prediction_errors(
    pipeline: Pipeline, path: Path, states: dict[str, Tensor], teacher: str, empty: str, probes: int
) -> dict[str, Values]:
    """What each conditioning predicts on the teacher's own path, against what the teacher's does, [n] each.

    0 is the teacher's prediction, 1 is as far from it as that for the teacher's empty prompt. Ratios are taken at
    `probes` steps spread over the path and averaged; they are the same for a UNet that predicts noise or velocity.
    """
    steps = scheduler(pipeline, len(path.times))
    found: dict[str, list[Values]] = {name: [] for name in states}
    for place in np.linspace(0, len(path.times) - 1, probes).round().astype(int):
        time = path.times[place]
        seen = steps.scale_model_input(path.latents[place], time)
        predicted = {
            name: pipeline.unet(seen, time, each.expand(len(seen), -1, -1)).sample for name, each in states.items()
        }
        unit = predicted[empty] - predicted[teacher]
        for name, each in predicted.items():
            found[name].append(ratio(each - predicted[teacher], unit))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


TEACHER, EMPTY, WRONG, STUDENT_EMPTY = "teacher-en", "teacher-empty", "teacher-wrong", "student-empty"
PROBES = 4  # steps at which predictions are compared
Read = Callable[[NDArray[np.uint8]], list[Reading]]


@dataclass(frozen=True)
class Twins:
    """Values [prompts, seeds] by measure and conditioning, pictures of the first seed, and distance by step."""

    values: dict[str, dict[str, Values]]
    pictures: dict[str, NDArray[np.uint8]]
    by_step: dict[str, list[float]]


def conditionings(prompts: list[Prompt], teacher: Conditioner, student: Conditioner, floor: bool) -> dict[str, Tensor]:
    """States [prompts, slots, d] by name; `floor` adds the teacher reading Chinese."""
    english, chinese = [prompt.en for prompt in prompts], [prompt.zh for prompt in prompts]
    found = {
        TEACHER: teacher.states(english),
        "student-en": student.states(english),
        "student-zh": student.states(chinese),
    }
    mixed = [prompt.mixed for prompt in prompts]
    if all(mixed):
        found["student-mixed"] = student.states([text or "" for text in mixed])
    if floor:
        found["teacher-zh"] = teacher.states(chinese)
    return found


def compare(
    pipeline: Pipeline, teacher: Conditioner, student: Conditioner, prompts: list[Prompt], seeds: int,
    how: Drawing, read: Read | None, shown: int = 8, floor: bool = False,
) -> Twins:  # fmt: skip
    """Draw every prompt from `seeds` noises under every conditioning and measure; `read` needs prompts with scenes."""
    shown, states = min(shown, len(prompts)), conditionings(prompts, teacher, student, floor)
    empty = {TEACHER: teacher.states([""]), "student": student.states([""])}
    cases = [(row, seed) for seed in range(seeds) for row in range(len(prompts))]
    gathered: dict[str, dict[str, list[Values]]] = {}
    kept: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in states}

    def add(measure: str, name: str, values: Values) -> None:
        gathered.setdefault(measure, {}).setdefault(name, []).append(values)

    for start in tqdm(range(0, len(cases), how.batch), desc="pictures", mininterval=2):
        some = cases[start : start + how.batch]
        rows = torch.tensor([row for row, _ in some])
        begin = noise(pipeline, [seed * 1_000_003 + row for row, seed in some])
        paths, drawn = {}, {}
        for name, each in states.items():
            free = empty[TEACHER if name.startswith("teacher") else "student"]
            paths[name] = draw(pipeline, begin, each[rows], free, how)
            drawn[name] = pictures(pipeline, paths[name].latents[-1])
            missing = shown - sum(map(len, kept[name]))
            kept[name].append(drawn[name][: max(0, missing)])
            if read is not None:
                _read(add, name, [prompts[row] for row, _ in some], read(drawn[name]))
            if name != TEACHER:
                add("psnr", name, psnr(drawn[TEACHER], drawn[name]))
                add("latent_distance", name, distances(paths[TEACHER], paths[name]))
        looked = {name: each[rows] for name, each in states.items()}
        looked |= {EMPTY: empty[TEACHER], STUDENT_EMPTY: empty["student"]}
        looked[WRONG] = states[TEACHER][(rows + 1) % len(prompts)]
        for name, found in prediction_errors(pipeline, paths[TEACHER], looked, TEACHER, EMPTY, PROBES).items():
            add("prediction_error", name, found)
        own = {TEACHER: looked[TEACHER], EMPTY: looked[EMPTY], "student": looked[STUDENT_EMPTY]}
        errors = prediction_errors(pipeline, paths[TEACHER], own, EMPTY, TEACHER, PROBES)
        add("empty_prompt_error", "student", errors["student"])
    by_step = {name: np.concatenate(each).mean(0).tolist() for name, each in gathered["latent_distance"].items()}
    gathered["latent_distance"] = {
        name: [np.concatenate(each)[:, -1]] for name, each in gathered["latent_distance"].items()
    }
    values = {
        measure: {name: np.concatenate(each).reshape(seeds, -1).T for name, each in named.items()}
        for measure, named in gathered.items()
    }
    return Twins(values, {name: np.concatenate(each) for name, each in kept.items()}, by_step)


def _read(add: Callable[[str, str, Values], None], name: str, prompts: list[Prompt], readings: list[Reading]) -> None:
    """What the recogniser says of pictures whose truth is known."""
    found = [agree(prompt.scene, reading) for prompt, reading in zip(prompts, readings, strict=True) if prompt.scene]
    add("things", name, np.array([one.found / one.things for one in found]))
    for field in ("exact", "counts", "sizes", "relations", "background", "all_but_size"):
        add(f"read_{field}", name, np.array([float(getattr(one, field)) for one in found]))


def summary(twins: Twins) -> dict[str, Any]:
    """Means with intervals by measure and conditioning, the share of the teacher's reading rate, distance by step."""
    found: dict[str, Any] = {}
    for measure, named in twins.values.items():
        found[measure] = {}
        for name, values in named.items():
            low, high = mean_interval(values.mean(1))
            found[measure][name] = {"mean": round(float(values.mean()), 5), "ci95": [round(low, 5), round(high, 5)]}
    found["latent_distance_by_step"] = {name: [round(x, 5) for x in each] for name, each in twins.by_step.items()}
    for measure in ("things", "read_exact", "read_all_but_size"):
        if measure in found and found[measure][TEACHER]["mean"] > 0:
            best = found[measure][TEACHER]["mean"]
            share = {name: round(each["mean"] / best, 5) for name, each in found[measure].items() if name != TEACHER}
            found[f"{measure}_share_of_teacher"] = share
    return found
