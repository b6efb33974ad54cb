"""Trains the recogniser on renders, and measures it on renders of unseen scenes."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.miniature.scene import Scene
from eval.generation.recogniser import FIELDS, Recogniser, agree, as_input, read
from eval.miniature.dataset import backgrounds, draw_rows, truths
from eval.miniature.training_loop import Plan, fit

BATCH = 128


def cell_losses(cells: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """What each field of the cells [n, fields, 8, 8] says against the truths [n, 8, 8, 6]."""
    presence, offset, kind, colour, size = torch.split(cells.float().permute(0, 2, 3, 1), FIELDS, dim=3)
    there = truth[..., 0] == 1
    known = truth[there].long()
    return {
        "presence": 10 * F.binary_cross_entropy_with_logits(presence[..., 0], there.float()),
        "offset": F.smooth_l1_loss(offset[there], known[:, 1:3] / 100),
        "kind": F.cross_entropy(kind[there], known[:, 3]),
        "colour": F.cross_entropy(colour[there], known[:, 4]),
        "size": 0.5 * F.cross_entropy(size[there], known[:, 5]),
    }


def disturb(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Noise, a little blur and a change of contrast, so that reading is not upset by an autoencoder's softness."""
    number = (len(inputs), 1, 1, 1)
    blurred = F.avg_pool2d(F.pad(inputs, (1, 1, 1, 1), mode="replicate"), 3, 1)
    inputs = torch.lerp(inputs, blurred, 0.8 * torch.rand(number, generator=generator))
    inputs = inputs + 0.12 * torch.rand(number, generator=generator) * torch.randn(inputs.shape, generator=generator)
    return inputs * (0.93 + 0.1 * torch.rand(number, generator=generator))


def train_recogniser(
    scenes: list[Scene], images: NDArray[np.uint8], plan: Plan, seed: int, folder: Path
) -> tuple[Recogniser, float]:
    """A trained recogniser; resumes from `folder`."""
    torch.manual_seed(seed)
    network = Recogniser()
    cells, places = truths(scenes), backgrounds(scenes)

    def losses(step: int) -> dict[str, Tensor]:
        rows = np.sort(draw_rows(len(scenes), BATCH, seed, step))
        inputs = disturb(as_input(images[rows]), torch.Generator().manual_seed(step))
        with torch.autocast("cpu", torch.bfloat16):
            found, background = network(inputs.to(memory_format=torch.channels_last))
        return cell_losses(found, cells[rows]) | {"background": 0.3 * F.cross_entropy(background.float(), places[rows])}

    seconds = fit("recogniser", network, plan, losses, folder)
    return network, seconds


def reading_scores(network: Recogniser, scenes: list[Scene], images: NDArray[np.uint8]) -> dict[str, float]:
    """Shares of scenes read right, and of things found in the right kind and colour."""
    found = [agree(scene, reading) for scene, reading in zip(scenes, read(network, images), strict=True)]
    whole = {
        key: float(np.mean([getattr(one, key) for one in found]))
        for key in ("exact", "counts", "sizes", "relations", "background", "all_but_size")
    }
    return {"things": sum(one.found for one in found) / sum(one.things for one in found), **whole}
