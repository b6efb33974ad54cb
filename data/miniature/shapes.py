"""Signed distances of simple shapes, negative inside, on arrays of points; y grows downwards."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # float32 in fact
Point = tuple[float, float]


def circle(x: Field, y: Field, cx: float, cy: float, radius: float) -> Field:
    """Distance to a disc."""
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - np.float32(radius)


def ellipse(x: Field, y: Field, cx: float, cy: float, a: float, b: float) -> Field:
    """About the distance to an ellipse with half axes a and b; exact to first order at its edge."""
    u, v = (x - cx) * np.float32(1 / a), (y - cy) * np.float32(1 / b)
    level = u * u + v * v
    slope = np.sqrt((u * np.float32(1 / a)) ** 2 + (v * np.float32(1 / b)) ** 2) + np.float32(1e-6)
    distance: Field = (level - 1) / (2 * slope)
    return distance


def box(x: Field, y: Field, cx: float, cy: float, half_width: float, half_height: float) -> Field:
    """About the distance to an upright rectangle."""
    distance: Field = np.maximum(np.abs(x - cx) - half_width, np.abs(y - cy) - half_height)
    return distance


def convex(x: Field, y: Field, *corners: Point) -> Field:
    """About the distance to a convex polygon whose corners are in either turning order."""
    middle = (sum(p[0] for p in corners) / len(corners), sum(p[1] for p in corners) / len(corners))
    result: Field | None = None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        nx, ny = by - ay, ax - bx
        length = (nx * nx + ny * ny) ** 0.5
        outward = 1.0 if (middle[0] - ax) * nx + (middle[1] - ay) * ny < 0 else -1.0
        nx, ny = outward * nx / length, outward * ny / length
        side = x * np.float32(nx) + y * np.float32(ny) - np.float32(ax * nx + ay * ny)
        result = side if result is None else np.maximum(result, side)
    assert result is not None, "a polygon has corners"
    return result


def stroke(x: Field, y: Field, start: Point, end: Point, radius: float) -> Field:
    """Distance to a straight line with round ends."""
    (ax, ay), (bx, by) = start, end
    dx, dy = bx - ax, by - ay
    share = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.sqrt((x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2) - np.float32(radius)


def union(*fields: Field) -> Field:
    """Inside any of them."""
    result = fields[0]
    for field in fields[1:]:
        result = np.minimum(result, field)
    return result


def without(field: Field, hole: Field) -> Field:
    """Inside the first and not the second."""
    return np.maximum(field, -hole)


def both(field: Field, other: Field) -> Field:
    """Inside both."""
    return np.maximum(field, other)
