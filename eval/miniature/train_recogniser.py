"""Trains the recogniser on renders, and scores it on renders of unseen scenes."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.miniature.scene import Scene
from eval.generation.recogniser import FIELDS, Recogniser, as_input, match_scene, match_shares, recognise
from eval.miniature.dataset import background_indices, batch_rows, cell_targets
from eval.miniature.training_loop import TrainingConfig, fit

BATCH = 128


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


def train_recogniser(
    scenes: list[Scene], images: NDArray[np.uint8], config: TrainingConfig, seed: int, folder: Path
) -> tuple[Recogniser, float]:
    """A trained recogniser; resumes from `folder`."""
    torch.manual_seed(seed)
    network = Recogniser()
    cells, background_targets = cell_targets(scenes), background_indices(scenes)

    def losses(step: int) -> dict[str, Tensor]:
        rows = np.sort(batch_rows(len(scenes), BATCH, seed, step))
        inputs = perturb_images(as_input(images[rows]), torch.Generator().manual_seed(step))
        with torch.autocast("cpu", torch.bfloat16):
            cell_logits, background_logits = network(inputs.to(memory_format=torch.channels_last))
        return cell_losses(cell_logits, cells[rows]) | {
            "background": 0.3 * F.cross_entropy(background_logits.float(), background_targets[rows])
        }

    seconds = fit("recogniser", network, config, losses, folder)
    return network, seconds


def recogniser_scores(network: Recogniser, scenes: list[Scene], images: NDArray[np.uint8]) -> dict[str, float]:
    """`match_shares` of the recogniser's output on pictures of known scenes."""
    recognised = zip(scenes, recognise(network, images), strict=True)
    return match_shares([match_scene(scene, content) for scene, content in recognised])
