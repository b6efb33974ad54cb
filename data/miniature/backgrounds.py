"""The eight backgrounds: smooth fields over the whole picture, varied by each picture's own noise."""

from collections.abc import Callable

import numpy as np

from data.miniature.shapes import Field

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
