"""Shapes as signed distances, negative inside: functions of arrays of points (x, y); y grows downwards."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # float32 in fact
Point = tuple[float, float]
Shape = Callable[[Field, Field], Field]


def circle(cx: float, cy: float, radius: float) -> Shape:
    """A disc."""
    return lambda x, y: np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - np.float32(radius)


def ellipse(cx: float, cy: float, a: float, b: float) -> Shape:
    """An ellipse with half axes a and b; the distance is exact to first order at its edge."""

    def distance(x: Field, y: Field) -> Field:
        u, v = (x - cx) * np.float32(1 / a), (y - cy) * np.float32(1 / b)
        slope = np.sqrt((u * np.float32(1 / a)) ** 2 + (v * np.float32(1 / b)) ** 2) + np.float32(1e-6)
        result: Field = (u * u + v * v - 1) / (2 * slope)
        return result

    return distance


def box(cx: float, cy: float, half_width: float, half_height: float) -> Shape:
    """An upright rectangle; the distance is about right."""
    return lambda x, y: np.maximum(np.abs(x - cx) - half_width, np.abs(y - cy) - half_height)


def column(cx: float, half_width: float) -> Shape:
    """An upright band without end."""
    return lambda x, y: np.abs(x - cx) - np.float32(half_width)


def above(level: float) -> Shape:
    """All that lies above a level."""
    return lambda x, y: y - np.float32(level)


def convex(*corners: Point) -> Shape:
    """A convex polygon whose corners are in either turning order; the distance is about right."""
    middle = (sum(p[0] for p in corners) / len(corners), sum(p[1] for p in corners) / len(corners))
    sides = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        nx, ny = by - ay, ax - bx
        length = (nx * nx + ny * ny) ** 0.5
        outward = 1.0 if (middle[0] - ax) * nx + (middle[1] - ay) * ny < 0 else -1.0
        nx, ny = outward * nx / length, outward * ny / length
        sides.append((np.float32(nx), np.float32(ny), np.float32(ax * nx + ay * ny)))
    return lambda x, y: reduce(np.maximum, (x * nx + y * ny - offset for nx, ny, offset in sides))


def stroke(start: Point, end: Point, radius: float) -> Shape:
    """A straight line with round ends."""
    (ax, ay), (bx, by) = start, end
    dx, dy = bx - ax, by - ay

    def distance(x: Field, y: Field) -> Field:
        share = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        return np.sqrt((x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2) - np.float32(radius)

    return distance


def union(*shapes: Shape) -> Shape:
    """Inside any of them."""
    return lambda x, y: reduce(np.minimum, (shape(x, y) for shape in shapes))


def both(one: Shape, other: Shape) -> Shape:
    """Inside both."""
    return lambda x, y: np.maximum(one(x, y), other(x, y))


def without(shape: Shape, hole: Shape) -> Shape:
    """Inside the first and not the second."""
    return lambda x, y: np.maximum(shape(x, y), -hole(x, y))


def rim(shape: Shape, half_width: float) -> Shape:
    """A band along the edge of a shape."""
    return lambda x, y: np.abs(shape(x, y)) - np.float32(half_width)


def mirrored(shape: Shape) -> Shape:
    """The right half of a shape on both sides."""
    return lambda x, y: shape(np.abs(x), y)


def quartered(shape: Shape) -> Shape:
    """The lower right quarter of a shape in all four."""
    return lambda x, y: shape(np.abs(x), np.abs(y))
