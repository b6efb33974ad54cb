"""Icons of living things: functions of local coordinates in [-1, 1], each a list of layers from back to front."""

import numpy as np

from data.miniature.shapes import Field, both, box, circle, convex, ellipse, stroke, union, without

Layer = tuple[Field, int]
BODY, SHADE, DARK, LIGHT = range(4)  # paints: the thing's colour, its shade, ink, highlight


def cat(x: Field, y: Field) -> list[Layer]:
    """A face with pointed ears and whiskers."""
    m = np.abs(x)
    head = union(ellipse(x, y, 0, 0.22, 0.86, 0.68), convex(m, y, (0.84, 0.2), (0.82, -0.95), (0.12, -0.35)))
    eyes = ellipse(m, y, 0.36, 0.1, 0.13, 0.18)
    return [(head, BODY), (eyes, DARK), (ellipse(x, y, 0, 0.46, 0.14, 0.1), DARK)]


def dog(x: Field, y: Field) -> list[Layer]:
    """A face with hanging ears and a pale snout."""
    m = np.abs(x)
    face = ellipse(x, y, 0, 0.0, 0.6, 0.85)
    ears = ellipse(m, y, 0.72, 0.05, 0.25, 0.68)
    return [
        (face, BODY), (ears, SHADE), (ellipse(x, y, 0, 0.45, 0.38, 0.36), LIGHT),
        (ellipse(x, y, 0, 0.3, 0.18, 0.13), DARK), (circle(m, y, 0.26, -0.2, 0.12), DARK),
    ]  # fmt: skip


def rabbit(x: Field, y: Field) -> list[Layer]:
    """A round face under two long upright ears."""
    m = np.abs(x)
    head = union(ellipse(x, y, 0, 0.45, 0.62, 0.52), stroke(m, y, (0.26, 0.1), (0.36, -0.78), 0.19))
    return [
        (head, BODY), (stroke(m, y, (0.29, -0.15), (0.36, -0.75), 0.07), SHADE),
        (circle(m, y, 0.24, 0.38, 0.1), DARK), (ellipse(x, y, 0, 0.62, 0.12, 0.08), DARK),
    ]  # fmt: skip


def fish(x: Field, y: Field) -> list[Layer]:
    """Swims to the left, with a forked tail."""
    body = ellipse(x, y, -0.2, 0, 0.76, 0.48)
    tail = convex(x, y, (0.35, 0), (0.98, -0.58), (0.98, 0.58))
    stripe = both(body, np.abs(x - 0.05) - np.float32(0.09))
    return [(tail, SHADE), (body, BODY), (stripe, SHADE), (circle(x, y, -0.6, -0.08, 0.12), DARK)]


def bird(x: Field, y: Field) -> list[Layer]:
    """Stands in profile, a wing raised."""
    body = union(ellipse(x, y, 0.0, 0.25, 0.58, 0.4), circle(x, y, -0.52, -0.2, 0.3))
    tail = convex(x, y, (0.3, 0.3), (0.98, 0.0), (0.95, 0.35))
    wing = convex(x, y, (-0.25, 0.15), (0.6, -0.85), (0.42, 0.2))
    beak = convex(x, y, (-0.75, -0.33), (-0.75, -0.05), (-1.0, -0.15))
    legs = union(stroke(x, y, (-0.1, 0.6), (-0.1, 0.92), 0.06), stroke(x, y, (0.2, 0.6), (0.2, 0.92), 0.06))
    return [
        (legs, DARK),
        (tail, SHADE),
        (body, BODY),
        (wing, SHADE),
        (beak, DARK),
        (circle(x, y, -0.55, -0.25, 0.09), DARK),
    ]


def butterfly(x: Field, y: Field) -> list[Layer]:
    """Four spread wings with pale spots around a dark body."""
    m = np.abs(x)
    wings = union(ellipse(m, y, 0.54, -0.36, 0.46, 0.5), ellipse(m, y, 0.44, 0.5, 0.36, 0.42))
    spots = union(circle(m, y, 0.58, -0.4, 0.17), circle(m, y, 0.46, 0.52, 0.12))
    return [
        (stroke(m, y, (0.02, -0.6), (0.26, -0.95), 0.05), DARK), (wings, BODY), (spots, LIGHT),
        (stroke(x, y, (0, -0.55), (0, 0.7), 0.11), DARK),
    ]  # fmt: skip


def snake(x: Field, y: Field) -> list[Layer]:
    """Three lying bends and a raised head."""
    wave = np.float32(0.34) * np.sin(np.float32(5.6) * x) + np.float32(0.2)
    slope = np.float32(1.9) * np.cos(np.float32(5.6) * x)
    body = both(np.abs(y - wave) / np.sqrt(1 + slope * slope) - np.float32(0.14), np.abs(x) - np.float32(0.92))
    head = union(ellipse(x, y, -0.6, -0.5, 0.36, 0.24), stroke(x, y, (-0.84, 0.35), (-0.5, -0.4), 0.15))
    return [(body, BODY), (head, BODY), (circle(x, y, -0.68, -0.55, 0.1), DARK)]


def turtle(x: Field, y: Field) -> list[Layer]:
    """A dome with a pattern, on feet, head to the left."""
    dome = both(ellipse(x, y, 0.1, 0.3, 0.74, 0.85), y - np.float32(0.35))
    feet = union(box(x, y, -0.3, 0.5, 0.17, 0.26), box(x, y, 0.5, 0.5, 0.17, 0.26))
    head = ellipse(x, y, -0.76, 0.1, 0.24, 0.22)
    pattern = union(circle(x, y, 0.1, -0.1, 0.2), circle(x, y, -0.28, 0.14, 0.13), circle(x, y, 0.48, 0.14, 0.13))
    return [(feet, SHADE), (head, SHADE), (dome, BODY), (pattern, DARK), (circle(x, y, -0.82, 0.06, 0.08), DARK)]


def tree(x: Field, y: Field) -> list[Layer]:
    """A round crown on a dark trunk."""
    crown = union(circle(x, y, 0, -0.4, 0.56), circle(np.abs(x), y, 0.45, -0.05, 0.42))
    return [(box(x, y, 0, 0.65, 0.16, 0.33), DARK), (crown, BODY)]


def flower(x: Field, y: Field) -> list[Layer]:
    """Five petals around a dark heart, on a stem with a leaf."""
    petals = union(
        circle(x, y, 0, -0.68, 0.3), circle(np.abs(x), y, 0.42, -0.4, 0.3), circle(np.abs(x), y, 0.27, 0.06, 0.3)
    )
    stem = union(stroke(x, y, (0, 0.1), (0, 0.95), 0.08), ellipse(x, y, 0.3, 0.72, 0.28, 0.12))
    return [(stem, DARK), (petals, BODY), (circle(x, y, 0, -0.26, 0.22), DARK)]


def apple(x: Field, y: Field) -> list[Layer]:
    """Two lobes, a stem and a leaf."""
    fruit = union(ellipse(np.abs(x), y, 0.34, 0.22, 0.5, 0.68))
    leaf = ellipse(x - (y + 0.7) * 0.4, y, 0.4, -0.72, 0.34, 0.16)
    return [(stroke(x, y, (0, -0.3), (0.05, -0.85), 0.08), DARK), (fruit, BODY), (leaf, SHADE),
            (ellipse(x, y, -0.45, 0.05, 0.12, 0.2), LIGHT)]  # fmt: skip


def moon(x: Field, y: Field) -> list[Layer]:
    """A crescent."""
    return [(without(circle(x, y, 0, 0, 0.92), circle(x, y, 0.45, -0.16, 0.74)), BODY)]
