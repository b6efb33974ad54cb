"""Drawing: a pure function of (scene, seed), vectorised over a batch of pictures."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

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
Colour = tuple[float, float, float]
Horizon = tuple[float, float, float]  # level, height, waves
Paint = Callable[[Field, Field, Field], Field]  # (x [1, 1, s], y [1, s, 1], noise [n, 16]) -> [n, s, s, 3], 0..255


def _mix(low: Field, high: Colour, share: Field) -> Field:
    """`low` where share is 0, `high` where it is 1."""
    result: Field = low + (np.asarray(high, np.float32) - low) * share[..., None]
    return result


def _fade(top: Colour, bottom: Colour, x: Field, y: Field, noise: Field) -> Field:
    """A vertical gradient whose brightness varies by 4 % with the first noise value."""
    share = np.broadcast_to(y, (len(noise), y.shape[1], x.shape[2]))
    base: Field = np.broadcast_to(np.asarray(top, np.float32), (*share.shape, 3))
    return _mix(base, bottom, share) * (0.98 + 0.04 * noise[:, 0, None, None, None])


def _ground(x: Field, y: Field, noise: Field, level: float, height: float, waves: float) -> Field:
    """How much of each pixel lies below a waving horizon, 0..1."""
    phase = 6.28 * noise[:, 1, None, None]
    horizon = level + 0.03 * (noise[:, 2, None, None] - 0.5) + height * np.sin(waves * x + phase)
    edge: Field = np.clip((y - horizon) * y.shape[1] + 0.5, 0, 1)
    return edge


def _land(top: Colour, bottom: Colour, far: Colour, near: Colour, horizons: tuple[Horizon, Horizon]) -> Paint:
    """Far and near ground, with their horizons, under a sky from `top` to `bottom`."""

    def paint(x: Field, y: Field, noise: Field) -> Field:
        sky = _fade(top, bottom, x, y, noise)
        behind = _mix(sky, far, _ground(x, y, noise, *horizons[0]))
        return _mix(behind, near, _ground(x, y, 1 - noise, *horizons[1]))

    return paint


def night(x: Field, y: Field, noise: Field) -> Field:
    """A night sky with stars."""
    sky = _fade((14, 18, 62), (52, 48, 110), x, y, noise)
    stars = ((0.08, 0.1), (0.5, 0.07), (0.93, 0.14), (0.05, 0.52), (0.95, 0.55), (0.5, 0.94), (0.1, 0.92))
    for index, (cx, cy) in enumerate(stars):
        dx = x - cx - 0.05 * (noise[:, 3 + index, None, None] - 0.5)
        dy = y - cy - 0.05 * (noise[:, 4 + index, None, None] - 0.5)
        sky = _mix(sky, (255, 250, 205), np.clip(1.6 - np.sqrt(dx * dx + dy * dy) * 64, 0, 1))
    return sky


def sea(x: Field, y: Field, noise: Field) -> Field:
    """Open water under a pale sky."""
    sky = _fade((205, 232, 246), (165, 208, 236), x, y, noise)
    water = _ground(x, y, noise, 0.5, 0.012, 14)
    picture = _mix(sky, (40, 128, 178), water)
    swell = np.sin(22 * y - 6.28 * noise[:, 3, None, None] + 2 * np.sin(6 * x + 6.28 * noise[:, 4, None, None]))
    return _mix(picture, (96, 176, 214), water * np.clip(swell * 2 - 1, 0, 1) * 0.7)


def forest(x: Field, y: Field, noise: Field) -> Field:
    """Trunks in green shade."""
    shade = _fade((58, 108, 76), (34, 76, 52), x, y, noise)
    for index in range(4):
        centre = 0.12 + 0.253 * index + 0.04 * (noise[:, 3 + index, None, None] - 0.5)
        trunk = np.clip((0.035 - np.abs(x - centre)) * 64 + 0.5, 0, 1) * (1.0 * (y < 0.86))
        shade = _mix(shade, (66, 52, 40), trunk)
    return _mix(shade, (40, 62, 34), _ground(x, y, noise, 0.84, 0.012, 9))


def sunset(x: Field, y: Field, noise: Field) -> Field:
    """A glowing evening sky over dark land."""
    sky = _fade((122, 66, 128), (255, 158, 84), x, y, noise)
    return _mix(sky, (74, 44, 66), _ground(x, y, noise, 0.82, 0.025, 5))


def city(x: Field, y: Field, noise: Field) -> Field:
    """A skyline with lit windows."""
    sky = _fade((186, 190, 202), (224, 220, 216), x, y, noise)
    steps = np.float32(0.1) * (np.arange(5) % 2).astype(np.float32)
    heights = np.float32(0.42) + np.float32(0.16) * noise[:, 3:8] + steps
    roof = heights[:, np.floor(x[0, 0] * 5).astype(np.intp)]
    tower = np.clip((y - roof[:, None]) * y.shape[1] + 0.5, 0, 1)
    gap = np.clip((0.46 - np.abs(x * 5 - np.floor(x * 5) - 0.5)) * 14, 0, 1)
    picture = _mix(sky, (104, 112, 132), tower * gap)
    window = (np.abs((x * 10) % 1 - 0.5) < 0.2) & (np.abs((y * 8) % 1 - 0.5) < 0.2) & (y > 0.62)
    return _mix(picture, (236, 214, 140), tower * gap * window * np.float32(0.55))


grassland = _land(
    (150, 206, 250), (214, 236, 250), (150, 205, 110), (112, 178, 72), ((0.52, 0.05, 4), (0.7, 0.04, 5))
)  # fmt: skip
snow = _land(
    (150, 162, 182), (196, 205, 218), (226, 233, 242), (246, 249, 253), ((0.48, 0.035, 5), (0.72, 0.03, 4))
)  # fmt: skip
desert = _land(
    (250, 232, 190), (252, 216, 158), (226, 176, 104), (206, 150, 82), ((0.5, 0.06, 5), (0.72, 0.05, 4))
)  # fmt: skip
PAINTERS: dict[str, Paint] = {
    "night": night, "sea": sea, "grassland": grassland, "snow": snow,
    "desert": desert, "forest": forest, "sunset": sunset, "city": city,
}  # fmt: skip


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
