"""How far twins are apart: pure functions of pictures, latents and predictions, one value a picture."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.twins.sampling import Path, Pipeline, scheduler

Values = NDArray[np.float64]
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


def interval(values: Values, draws: int = 2000) -> tuple[float, float]:
    """95 % of the mean of values [prompts], by bootstrap over prompts."""
    lots = np.random.default_rng(20260101).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[lots].mean(1), [2.5, 97.5])
    return float(low), float(high)
