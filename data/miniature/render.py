"""Drawing: a pure function of (scene, seed), vectorised over a batch of pictures."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from data.miniature.backgrounds import PAINTERS
from data.miniature.icons import BODY, DARK, ICONS, LIGHT, SHADE
from data.miniature.scene import PlacedObject, Scene, place_objects
from data.miniature.shapes import Field

RGB = {
    "red": (222, 38, 38), "yellow": (250, 212, 30), "green": (38, 160, 60), "blue": (36, 84, 226),
    "purple": (146, 56, 190), "pink": (252, 148, 190), "white": (250, 250, 250), "black": (30, 28, 34),
}  # fmt: skip
INK, PALE = np.array((26, 22, 30), np.float32), np.array((252, 252, 244), np.float32)
NOISE_DIM = 16  # random numbers a picture's background uses; each object uses as many again
OUTLINE = 0.95  # pixels at a width of 64


def uniform_noise(seeds: NDArray[np.uint64], number: int) -> Field:
    """[len(seeds), number] numbers in [0, 1), a pure function of each seed (splitmix64)."""
    steps = np.arange(1, number + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = seeds[:, None] * np.uint64(0x2545F4914F6CDD1D) + steps
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    noise: Field = (state >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return noise


def thing_palette(colour: str) -> Field:
    """The four paints of a thing of this colour, [4, 3], indexed by BODY, SHADE, DARK, LIGHT."""
    body, paints = np.array(RGB[colour], np.float32), np.empty((4, 3), np.float32)
    paints[[BODY, SHADE, DARK, LIGHT]] = body, body * 0.74, INK, PALE
    if colour == "black":
        paints[SHADE], paints[DARK] = body + 38, (128, 126, 134)
    if colour == "white":
        paints[LIGHT] = (188, 200, 214)
    return paints


def _stamp(
    canvas: Field, pictures: NDArray[np.intp], layers: list[tuple[Field, int]], x0: NDArray[np.intp],
    y0: NDArray[np.intp], pixel: Field, palette: Field, outline: Field,
) -> None:  # fmt: skip
    """Blend one kind's layers onto the padded canvases, back to front, with one pixel of soft edge."""
    side = layers[0][0].shape[1]
    rows = (y0[:, None] + np.arange(side))[:, :, None]
    columns = (x0[:, None] + np.arange(side))[:, None, :]
    index = (pictures[:, None, None], rows, columns)
    patch = canvas[index]
    edge = reduce(np.minimum, [field for field, _ in layers]) - OUTLINE * (canvas.shape[1] / 80) * pixel
    for field, paint in [(edge, -1), *layers]:
        cover = np.clip(np.float32(0.5) - field / pixel, 0, 1)[..., None]
        tone = outline if paint < 0 else palette[:, paint]
        patch += (tone[:, None, None, :] - patch) * cover
    canvas[index] = patch


def render_batch(
    scenes: Sequence[Scene], seeds: Sequence[int] | NDArray[np.uint64], width: int = 64
) -> NDArray[np.uint8]:
    """Pictures [n, width, width, 3]; picture i depends on scenes[i], seeds[i] and width alone."""
    number, keys = len(scenes), np.asarray(seeds, np.uint64)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, None, :]
    noise = uniform_noise(keys, NOISE_DIM * 5)
    margin = width // 8  # objects near the edge may reach over it
    canvas = np.zeros((number, width + 2 * margin, width + 2 * margin, 3), np.float32)
    middle = slice(margin, margin + width)
    for name, painter in PAINTERS.items():
        which = np.flatnonzero([scene.background == name for scene in scenes])
        if len(which):
            canvas[which, middle, middle] = painter(x, x.transpose(0, 2, 1), noise[which, :NOISE_DIM])
    placed = [place_objects(scene) for scene in scenes]
    for depth in range(4):
        groups: dict[str, list[int]] = {}
        for picture, items in enumerate(placed):
            if depth < len(items):
                groups.setdefault(scenes[picture].things[items[depth].thing].kind, []).append(picture)
        for kind, pictures in groups.items():
            _draw(canvas, width, kind, np.asarray(pictures), scenes, placed, noise, depth)
    images: NDArray[np.uint8] = np.clip(canvas[:, middle, middle] + np.float32(0.5), 0, 255).astype(np.uint8)
    return images


def _draw(
    canvas: Field, width: int, kind: str, pictures: NDArray[np.intp], scenes: Sequence[Scene],
    placed: list[list[PlacedObject]], noise: Field, depth: int,
) -> None:  # fmt: skip
    """Draw the object at this depth in every picture where it is of this kind."""
    items = [placed[picture][depth] for picture in pictures]
    colours = [scenes[picture].things[item.thing].colour for picture, item in zip(pictures, items, strict=True)]
    on = np.asarray([scenes[picture].relations[:1] == ("on",) for picture in pictures])
    jitter = noise[pictures, NOISE_DIM * (1 + depth) : NOISE_DIM * (2 + depth)] - np.float32(0.5)
    shared = noise[pictures, NOISE_DIM : 2 * NOISE_DIM] - np.float32(0.5)  # what stands on something moves with it
    shift = np.where(on[:, None], shared[:, :2], jitter[:, :2]) * np.float32(0.045)
    half = np.array([item.half for item in items], np.float32) * (1 + 0.08 * jitter[:, 2])
    cx = (np.array([item.x for item in items], np.float32) + shift[:, 0]) * width
    cy = (np.array([item.y for item in items], np.float32) + shift[:, 1]) * width
    side = int(width * 0.56) + 2
    x0, y0 = (np.floor(centre - side / 2).astype(np.intp) for centre in (cx, cy))
    scale = (1 / (half * width)).astype(np.float32)
    steps = np.arange(side, dtype=np.float32) + np.float32(0.5)
    dx = ((steps[None] + x0[:, None] - cx[:, None]) * scale[:, None])[:, None, :]
    dy = ((steps[None] + y0[:, None] - cy[:, None]) * scale[:, None])[:, :, None]
    angle = (0.16 * jitter[:, 3])[:, None, None]
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    layers = [(shape(x, y), paint) for shape, paint in ICONS[kind]]
    palette = np.stack([thing_palette(colour) for colour in colours]) * (1 + 0.1 * jitter[:, 4])[:, None, None]
    outline = np.stack([PALE if colour == "black" else INK for colour in colours])
    margin = width // 8
    _stamp(canvas, pictures, layers, x0 + margin, y0 + margin, scale[:, None, None], palette, outline)


def render(scene: Scene, seed: int, width: int = 64) -> NDArray[np.uint8]:
    """One picture [width, width, 3] of the scene."""
    image: NDArray[np.uint8] = render_batch([scene], [seed], width)[0]
    return image
