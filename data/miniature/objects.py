"""Icons of the sky, of buildings and of made things, in the same form as the creatures."""

import numpy as np

from data.miniature.creatures import BODY, DARK, LIGHT, SHADE, Layer
from data.miniature.shapes import Field, both, box, circle, convex, ellipse, stroke, union, without


def mountain(x: Field, y: Field) -> list[Layer]:
    """A high peak with a white cap before a lower one."""
    peak = convex(x, y, (-0.2, -0.92), (-1, 0.8), (0.65, 0.8))
    lower = convex(x, y, (0.5, -0.2), (-0.1, 0.8), (1, 0.8))
    return [(lower, SHADE), (peak, BODY), (both(peak, y + np.float32(0.3) - np.abs(x + 0.2) * np.float32(0.6)), LIGHT)]


def sun(x: Field, y: Field) -> list[Layer]:
    """A disc with eight rays."""
    a, b = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    rays = union(stroke(a, b, (0.72, 0), (0.92, 0), 0.1), stroke(a, b, (0.51, 0.51), (0.66, 0.66), 0.1))
    return [(rays, BODY), (circle(x, y, 0, 0, 0.5), BODY)]


def star(x: Field, y: Field) -> list[Layer]:
    """Five points."""
    m = np.abs(x)
    body = union(
        convex(m, y, (0, -0.98), (0.3, 0.1), (-0.3, 0.1)),
        convex(m, y, (-0.1, -0.27), (0.97, -0.27), (0.05, 0.42)),
        convex(m, y, (0.62, 0.9), (-0.1, 0.4), (0.25, -0.2)),
        circle(m, y, 0, 0.05, 0.38),
    )
    return [(body, BODY)]


def cloud(x: Field, y: Field) -> list[Layer]:
    """Three puffs on a flat base."""
    body = union(
        circle(x, y, -0.5, 0.2, 0.42), circle(x, y, 0.54, 0.22, 0.4), circle(x, y, 0, -0.14, 0.54),
        box(x, y, 0, 0.4, 0.55, 0.22),
    )  # fmt: skip
    return [(body, BODY)]


def snowflake(x: Field, y: Field) -> list[Layer]:
    """Six arms with barbs."""
    m, n = np.abs(x), np.abs(y)
    arms = union(
        stroke(m, n, (0, 0), (0, 0.9), 0.12), stroke(m, n, (0, 0), (0.78, 0.45), 0.12),
        stroke(m, n, (0, 0.55), (0.24, 0.82), 0.09), stroke(m, n, (0.48, 0.28), (0.84, 0.18), 0.09),
        stroke(m, n, (0.48, 0.28), (0.58, 0.62), 0.09),
    )  # fmt: skip
    return [(arms, BODY)]


def castle(x: Field, y: Field) -> list[Layer]:
    """A gate between two roofed towers."""
    m = np.abs(x)
    wall = union(box(x, y, 0, 0.4, 0.6, 0.5), box(m, y, 0.27, -0.16, 0.12, 0.12))
    towers = box(m, y, 0.72, 0.25, 0.24, 0.65)
    roofs = convex(m, y, (0.42, -0.38), (1.0, -0.38), (0.72, -0.98))
    return [(wall, BODY), (towers, BODY), (roofs, SHADE), (box(x, y, 0, 0.65, 0.2, 0.25), DARK),
            (box(m, y, 0.72, 0.05, 0.08, 0.15), DARK)]  # fmt: skip


def house(x: Field, y: Field) -> list[Layer]:
    """A wide roof, a door and a lit window."""
    return [
        (box(x, y, 0, 0.42, 0.7, 0.46), BODY), (convex(x, y, (0, -0.9), (-1, 0.0), (1, 0.0)), SHADE),
        (box(x, y, -0.3, 0.6, 0.17, 0.28), DARK), (box(x, y, 0.34, 0.42, 0.19, 0.17), LIGHT),
    ]  # fmt: skip


def bridge(x: Field, y: Field) -> list[Layer]:
    """An arch under a deck with posts."""
    stone = without(box(x, y, 0, 0.2, 1.0, 0.45), ellipse(x, y, 0, 0.75, 0.62, 0.68))
    m = np.abs(x)
    posts = union(box(m, y, 0.88, -0.4, 0.1, 0.2), box(m, y, 0.46, -0.4, 0.08, 0.2), box(x, y, 0, -0.5, 1.0, 0.07))
    return [(posts, DARK), (stone, BODY)]


def pagoda(x: Field, y: Field) -> list[Layer]:
    """Three roofs above one another and a spire."""
    m = np.abs(x)
    walls = union(box(x, y, 0, 0.72, 0.5, 0.22), box(x, y, 0, 0.2, 0.38, 0.2), box(x, y, 0, -0.28, 0.26, 0.2))
    roofs = union(
        convex(m, y, (-0.1, 0.2), (0.4, 0.2), (0.95, 0.5), (-0.1, 0.5)),
        convex(m, y, (-0.1, -0.28), (0.3, -0.28), (0.76, 0.0), (-0.1, 0.0)),
        convex(m, y, (-0.1, -0.76), (0.12, -0.76), (0.6, -0.44), (-0.1, -0.44)),
    )
    return [(stroke(x, y, (0, -0.7), (0, -0.98), 0.07), DARK), (walls, SHADE), (roofs, BODY),
            (box(x, y, 0, 0.78, 0.14, 0.17), DARK)]  # fmt: skip


def boat(x: Field, y: Field) -> list[Layer]:
    """A hull under two sails."""
    hull = convex(x, y, (-0.95, 0.4), (0.95, 0.4), (0.6, 0.9), (-0.6, 0.9))
    sails = union(
        convex(x, y, (0.1, -0.92), (0.1, 0.26), (0.85, 0.26)), convex(x, y, (-0.1, -0.6), (-0.1, 0.26), (-0.7, 0.26))
    )
    return [(stroke(x, y, (0, -0.95), (0, 0.4), 0.07), DARK), (hull, SHADE), (sails, BODY)]


def helicopter(x: Field, y: Field) -> list[Layer]:
    """A cabin, a tail boom and rotors."""
    cabin = union(ellipse(x, y, -0.25, 0.15, 0.62, 0.45), stroke(x, y, (0.1, 0.0), (0.88, -0.15), 0.12))
    rotor = union(
        stroke(x, y, (-0.95, -0.6), (0.5, -0.6), 0.08), stroke(x, y, (-0.22, -0.6), (-0.22, -0.2), 0.07),
        stroke(x, y, (0.9, -0.42), (0.9, 0.12), 0.08), stroke(x, y, (-0.75, 0.82), (0.3, 0.82), 0.07),
    )  # fmt: skip
    return [(rotor, DARK), (cabin, BODY), (ellipse(x, y, -0.5, 0.08, 0.24, 0.22), LIGHT)]


def car(x: Field, y: Field) -> list[Layer]:
    """Two wheels, a body and windows."""
    body = union(box(x, y, 0, 0.22, 0.96, 0.28), convex(x, y, (-0.7, 0.0), (-0.42, -0.55), (0.38, -0.55), (0.68, 0.0)))
    windows = union(box(x, y, -0.26, -0.22, 0.19, 0.17), box(x, y, 0.24, -0.22, 0.19, 0.17))
    return [(body, BODY), (windows, LIGHT), (circle(np.abs(x), y, 0.52, 0.52, 0.27), DARK)]


def rocket(x: Field, y: Field) -> list[Layer]:
    """A pointed body with fins and a round window."""
    m = np.abs(x)
    hull = both(ellipse(m, y, -0.25, 0.1, 0.65, 1.1), y - np.float32(0.6))
    fins = convex(m, y, (0.28, 0.05), (0.85, 0.85), (0.2, 0.6))
    return [(box(x, y, 0, 0.72, 0.2, 0.16), DARK), (fins, SHADE), (hull, BODY), (circle(x, y, 0, -0.22, 0.19), LIGHT)]


def sword(x: Field, y: Field) -> list[Layer]:
    """A broad blade, point up, with a dark guard and hilt."""
    blade = convex(x, y, (0, -1), (0.24, -0.7), (0.24, 0.35), (-0.24, 0.35), (-0.24, -0.7))
    hilt = union(box(x, y, 0, 0.42, 0.58, 0.1), box(x, y, 0, 0.7, 0.11, 0.28))
    return [(blade, BODY), (hilt, DARK)]


def lantern(x: Field, y: Field) -> list[Layer]:
    """A ribbed paper globe with caps and a tassel."""
    globe = ellipse(x, y, 0, 0.0, 0.8, 0.6)
    ribs = both(globe, np.abs(ellipse(x, y, 0, 0.0, 0.4, 0.6)) - np.float32(0.05))
    caps = union(box(np.abs(x), np.abs(y), 0, 0.62, 0.36, 0.1), stroke(x, y, (0, 0.65), (0, 0.95), 0.08),
                 stroke(x, y, (0, -0.65), (0, -0.95), 0.06))  # fmt: skip
    return [(globe, BODY), (ribs, SHADE), (caps, DARK)]


def umbrella(x: Field, y: Field) -> list[Layer]:
    """A canopy with a scalloped edge over a hooked handle."""
    canopy = both(circle(x, y, 0, 0.08, 0.98), y - np.float32(0.08))
    canopy = without(canopy, union(ellipse(np.abs(x), y, 0.66, 0.12, 0.3, 0.16), ellipse(x, y, 0, 0.12, 0.3, 0.16)))
    handle = union(stroke(x, y, (0, -0.1), (0, 0.8), 0.08), stroke(x, y, (0, 0.85), (0.25, 0.85), 0.08))
    return [(handle, DARK), (canopy, BODY)]


def hat(x: Field, y: Field) -> list[Layer]:
    """A tall hat with a band and a brim."""
    return [
        (box(x, y, 0, -0.2, 0.56, 0.6), BODY), (box(x, y, 0, 0.22, 0.56, 0.13), DARK),
        (ellipse(x, y, 0, 0.52, 0.98, 0.24), BODY),
    ]  # fmt: skip


def crown(x: Field, y: Field) -> list[Layer]:
    """Three points with a band and jewels."""
    m = np.abs(x)
    body = union(
        box(x, y, 0, 0.4, 0.8, 0.32), convex(m, y, (0.8, 0.4), (0.95, -0.6), (0.25, 0.3)),
        convex(x, y, (0, -0.85), (-0.4, 0.3), (0.4, 0.3)),
    )  # fmt: skip
    jewels = union(circle(x, y, 0, 0.42, 0.14), circle(m, y, 0.5, 0.42, 0.14))
    return [(body, BODY), (jewels, LIGHT)]


def key(x: Field, y: Field) -> list[Layer]:
    """A ring, a shaft and two teeth."""
    ring = without(circle(x, y, 0, -0.48, 0.5), circle(x, y, 0, -0.48, 0.22))
    shaft = union(box(x, y, 0, 0.45, 0.14, 0.52), box(x, y, 0.28, 0.86, 0.26, 0.11), box(x, y, 0.24, 0.5, 0.22, 0.11))
    return [(union(ring, shaft), BODY)]


def cup(x: Field, y: Field) -> list[Layer]:
    """A mug with a handle on the right and a pale rim."""
    body = convex(x, y, (-0.88, -0.55), (0.48, -0.55), (0.32, 0.85), (-0.72, 0.85))
    handle = np.abs(circle(x, y, 0.5, 0.1, 0.34)) - np.float32(0.12)
    return [(handle, SHADE), (body, BODY), (ellipse(x, y, -0.2, -0.56, 0.68, 0.2), LIGHT)]
