"""The training pictures, rendered once and kept on disk, and the truths of their cells."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.miniature.layout import place
from data.miniature.render import render_batch
from data.miniature.scene import BACKGROUNDS, COLOURS, KINDS, SIZES, Scene
from eval.recogniser import GRID

CHUNK = 256


def pictures(scenes: list[Scene], seed: int, path: Path) -> NDArray[np.uint8]:
    """[n, 64, 64, 3], read from `path` or rendered into it; picture i has the seed `seed + i`."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        found = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(scenes), 64, 64, 3))
        for start in tqdm(range(0, len(scenes), CHUNK), desc=f"render {path.stem}", mininterval=5):
            some = scenes[start : start + CHUNK]
            found[start : start + CHUNK] = render_batch(some, range(seed + start, seed + start + len(some)))
        found.flush()
        partial.replace(path)
    loaded: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(loaded) != len(scenes):
        raise ValueError(f"{path} holds {len(loaded)} pictures, not {len(scenes)}; remove it")
    return loaded


def truths(scenes: list[Scene]) -> Tensor:
    """[n, 8, 8, 6] int8: presence, x and y offset of the centre in hundredths of a cell, kind, colour, size."""
    found = np.zeros((len(scenes), GRID, GRID, 6), np.int8)
    for index, scene in enumerate(scenes):
        for item in place(scene):
            thing = scene.things[item.thing]
            column, row = int(item.x * GRID), int(item.y * GRID)
            dx, dy = item.x * GRID - column - 0.5, item.y * GRID - row - 0.5
            found[index, row, column] = (
                1, round(100 * dx), round(100 * dy),
                KINDS.index(thing.kind), COLOURS.index(thing.colour), SIZES.index(thing.size),
            )  # fmt: skip
    return torch.from_numpy(found)


def backgrounds(scenes: list[Scene]) -> Tensor:
    """[n] indices into BACKGROUNDS."""
    return torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])


def draw_rows(number: int, batch: int, seed: int, step: int) -> NDArray[np.intp]:
    """The rows of a step: a pure function of its arguments; every row once before any comes again."""
    steps = number // batch
    epoch, at = divmod(step, steps)
    order = np.random.default_rng((seed, epoch)).permutation(number)
    return order[at * batch : (at + 1) * batch]
