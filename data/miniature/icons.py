"""The icons of all kinds: shapes in local coordinates from -1 to 1, with their paints, from back to front."""

import numpy as np

from data.miniature.shapes import (
    Field,
    Shape,
    above,
    both,
    box,
    circle,
    column,
    convex,
    ellipse,
    mirrored,
    quartered,
    rim,
    stroke,
    union,
    without,
)

Layer = tuple[Shape, int]
BODY, SHADE, DARK, LIGHT = range(4)  # paints: the thing's colour, its shade, ink, highlight


def _bends(x: Field, y: Field) -> Field:
    """A lying band with three bends: the snake's body."""
    wave = np.float32(0.34) * np.sin(np.float32(5.6) * x) + np.float32(0.2)
    slope = np.float32(1.9) * np.cos(np.float32(5.6) * x)
    distance: Field = np.abs(y - wave) / np.sqrt(1 + slope * slope) - np.float32(0.14)
    return distance


def _snow_line(x: Field, y: Field) -> Field:
    """Above a line that is highest under the mountain's peak."""
    distance: Field = y + np.float32(0.3) - np.abs(x + 0.2) * np.float32(0.6)
    return distance


def _eight_rays(x: Field, y: Field) -> Field:
    """Two of the sun's rays, mirrored at the axes and at the diagonals."""
    rays = union(stroke((0.72, 0), (0.92, 0), 0.1), stroke((0.51, 0.51), (0.66, 0.66), 0.1))
    return rays(np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y)))


def _leaning_leaf(x: Field, y: Field) -> Field:
    return ellipse(0.4, -0.72, 0.34, 0.16)(x - (y + 0.7) * 0.4, y)


_FISH = ellipse(-0.2, 0, 0.76, 0.48)
_PEAK = convex((-0.2, -0.92), (-1, 0.8), (0.65, 0.8))
_GLOBE = ellipse(0, 0.0, 0.8, 0.6)

ICONS: dict[str, list[Layer]] = {
    "cat": [  # a face with pointed ears
        (union(ellipse(0, 0.22, 0.86, 0.68), mirrored(convex((0.84, 0.2), (0.82, -0.95), (0.12, -0.35)))), BODY),
        (mirrored(ellipse(0.36, 0.1, 0.13, 0.18)), DARK), (ellipse(0, 0.46, 0.14, 0.1), DARK),
    ],
    "dog": [  # a face with hanging ears and a pale snout
        (ellipse(0, 0.0, 0.6, 0.85), BODY), (mirrored(ellipse(0.72, 0.05, 0.25, 0.68)), SHADE),
        (ellipse(0, 0.45, 0.38, 0.36), LIGHT), (ellipse(0, 0.3, 0.18, 0.13), DARK),
        (mirrored(circle(0.26, -0.2, 0.12)), DARK),
    ],
    "rabbit": [  # a round face under two long upright ears
        (union(ellipse(0, 0.45, 0.62, 0.52), mirrored(stroke((0.26, 0.1), (0.36, -0.78), 0.19))), BODY),
        (mirrored(stroke((0.29, -0.15), (0.36, -0.75), 0.07)), SHADE),
        (mirrored(circle(0.24, 0.38, 0.1)), DARK), (ellipse(0, 0.62, 0.12, 0.08), DARK),
    ],
    "fish": [  # swims to the left, with a forked tail and a stripe
        (convex((0.35, 0), (0.98, -0.58), (0.98, 0.58)), SHADE), (_FISH, BODY),
        (both(_FISH, column(0.05, 0.09)), SHADE), (circle(-0.6, -0.08, 0.12), DARK),
    ],
    "bird": [  # stands in profile on two legs: tail, body with head, raised wing, beak, eye
        (union(stroke((-0.1, 0.6), (-0.1, 0.92), 0.06), stroke((0.2, 0.6), (0.2, 0.92), 0.06)), DARK),
        (convex((0.3, 0.3), (0.98, 0.0), (0.95, 0.35)), SHADE),
        (union(ellipse(0.0, 0.25, 0.58, 0.4), circle(-0.52, -0.2, 0.3)), BODY),
        (convex((-0.25, 0.15), (0.6, -0.85), (0.42, 0.2)), SHADE),
        (convex((-0.75, -0.33), (-0.75, -0.05), (-1.0, -0.15)), DARK), (circle(-0.55, -0.25, 0.09), DARK),
    ],
    "butterfly": [  # four spread wings with pale spots around a dark body
        (mirrored(stroke((0.02, -0.6), (0.26, -0.95), 0.05)), DARK),
        (mirrored(union(ellipse(0.54, -0.36, 0.46, 0.5), ellipse(0.44, 0.5, 0.36, 0.42))), BODY),
        (mirrored(union(circle(0.58, -0.4, 0.17), circle(0.46, 0.52, 0.12))), LIGHT),
        (stroke((0, -0.55), (0, 0.7), 0.11), DARK),
    ],
    "snake": [  # a raised head
        (both(_bends, column(0, 0.92)), BODY),
        (union(ellipse(-0.6, -0.5, 0.36, 0.24), stroke((-0.84, 0.35), (-0.5, -0.4), 0.15)), BODY),
        (circle(-0.68, -0.55, 0.1), DARK),
    ],
    "turtle": [  # a dome with a pattern, on feet, head to the left
        (union(box(-0.3, 0.5, 0.17, 0.26), box(0.5, 0.5, 0.17, 0.26)), SHADE), (ellipse(-0.76, 0.1, 0.24, 0.22), SHADE),
        (both(ellipse(0.1, 0.3, 0.74, 0.85), above(0.35)), BODY),
        (union(circle(0.1, -0.1, 0.2), circle(-0.28, 0.14, 0.13), circle(0.48, 0.14, 0.13)), DARK),
        (circle(-0.82, 0.06, 0.08), DARK),
    ],
    "mountain": [  # a high peak with a white cap before a lower one
        (convex((0.5, -0.2), (-0.1, 0.8), (1, 0.8)), SHADE), (_PEAK, BODY), (both(_PEAK, _snow_line), LIGHT),
    ],
    "tree": [  # a round crown on a dark trunk
        (box(0, 0.65, 0.16, 0.33), DARK), (union(circle(0, -0.4, 0.56), mirrored(circle(0.45, -0.05, 0.42))), BODY),
    ],
    "flower": [  # five petals around a dark heart, on a stem with a leaf
        (union(stroke((0, 0.1), (0, 0.95), 0.08), ellipse(0.3, 0.72, 0.28, 0.12)), DARK),
        (mirrored(union(circle(0, -0.68, 0.3), circle(0.42, -0.4, 0.3), circle(0.27, 0.06, 0.3))), BODY),
        (circle(0, -0.26, 0.22), DARK),
    ],
    "moon": [(without(circle(0, 0, 0.92), circle(0.45, -0.16, 0.74)), BODY)],
    "sun": [(_eight_rays, BODY), (circle(0, 0, 0.5), BODY)],
    "star": [
        (mirrored(union(
            convex((0, -0.98), (0.3, 0.1), (-0.3, 0.1)), convex((-0.1, -0.27), (0.97, -0.27), (0.05, 0.42)),
            convex((0.62, 0.9), (-0.1, 0.4), (0.25, -0.2)), circle(0, 0.05, 0.38),
        )), BODY),
    ],
    "cloud": [  # three puffs on a flat base
        (union(circle(-0.5, 0.2, 0.42), circle(0.54, 0.22, 0.4), circle(0, -0.14, 0.54),
               box(0, 0.4, 0.55, 0.22)), BODY),
    ],
    "snowflake": [  # six arms with barbs
        (quartered(union(
            stroke((0, 0), (0, 0.9), 0.12), stroke((0, 0), (0.78, 0.45), 0.12), stroke((0, 0.55), (0.24, 0.82), 0.09),
            stroke((0.48, 0.28), (0.84, 0.18), 0.09), stroke((0.48, 0.28), (0.58, 0.62), 0.09),
        )), BODY),
    ],
    "castle": [  # a gate between two roofed towers with windows
        (union(box(0, 0.4, 0.6, 0.5), mirrored(box(0.27, -0.16, 0.12, 0.12))), BODY),
        (mirrored(box(0.72, 0.25, 0.24, 0.65)), BODY),
        (mirrored(convex((0.42, -0.38), (1.0, -0.38), (0.72, -0.98))), SHADE),
        (box(0, 0.65, 0.2, 0.25), DARK), (mirrored(box(0.72, 0.05, 0.08, 0.15)), DARK),
    ],
    "house": [  # a wide roof, a door and a lit window
        (box(0, 0.42, 0.7, 0.46), BODY), (convex((0, -0.9), (-1, 0.0), (1, 0.0)), SHADE),
        (box(-0.3, 0.6, 0.17, 0.28), DARK), (box(0.34, 0.42, 0.19, 0.17), LIGHT),
    ],
    "bridge": [  # an arch under a deck with posts
        (mirrored(union(box(0.88, -0.4, 0.1, 0.2), box(0.46, -0.4, 0.08, 0.2), box(0, -0.5, 1.0, 0.07))), DARK),
        (without(box(0, 0.2, 1.0, 0.45), ellipse(0, 0.75, 0.62, 0.68)), BODY),
    ],
    "pagoda": [  # a spire, walls, and three roofs above one another
        (stroke((0, -0.7), (0, -0.98), 0.07), DARK),
        (union(box(0, 0.72, 0.5, 0.22), box(0, 0.2, 0.38, 0.2), box(0, -0.28, 0.26, 0.2)), SHADE),
        (mirrored(union(
            convex((-0.1, 0.2), (0.4, 0.2), (0.95, 0.5), (-0.1, 0.5)),
            convex((-0.1, -0.28), (0.3, -0.28), (0.76, 0.0), (-0.1, 0.0)),
            convex((-0.1, -0.76), (0.12, -0.76), (0.6, -0.44), (-0.1, -0.44)),
        )), BODY),
        (box(0, 0.78, 0.14, 0.17), DARK),
    ],
    "boat": [  # a hull under two sails
        (stroke((0, -0.95), (0, 0.4), 0.07), DARK), (convex((-0.95, 0.4), (0.95, 0.4), (0.6, 0.9), (-0.6, 0.9)), SHADE),
        (union(convex((0.1, -0.92), (0.1, 0.26), (0.85, 0.26)),
               convex((-0.1, -0.6), (-0.1, 0.26), (-0.7, 0.26))), BODY),
    ],
    "helicopter": [  # rotors and a skid, a cabin with a tail boom, a window
        (union(
            stroke((-0.95, -0.6), (0.5, -0.6), 0.08), stroke((-0.22, -0.6), (-0.22, -0.2), 0.07),
            stroke((0.9, -0.42), (0.9, 0.12), 0.08), stroke((-0.75, 0.82), (0.3, 0.82), 0.07),
        ), DARK),
        (union(ellipse(-0.25, 0.15, 0.62, 0.45), stroke((0.1, 0.0), (0.88, -0.15), 0.12)), BODY),
        (ellipse(-0.5, 0.08, 0.24, 0.22), LIGHT),
    ],
    "car": [  # a body, windows and two wheels
        (union(box(0, 0.22, 0.96, 0.28), convex((-0.7, 0.0), (-0.42, -0.55), (0.38, -0.55), (0.68, 0.0))), BODY),
        (union(box(-0.26, -0.22, 0.19, 0.17), box(0.24, -0.22, 0.19, 0.17)), LIGHT),
        (mirrored(circle(0.52, 0.52, 0.27)), DARK),
    ],
    "rocket": [  # a pointed body with fins and a round window
        (box(0, 0.72, 0.2, 0.16), DARK), (mirrored(convex((0.28, 0.05), (0.85, 0.85), (0.2, 0.6))), SHADE),
        (both(mirrored(ellipse(-0.25, 0.1, 0.65, 1.1)), above(0.6)), BODY), (circle(0, -0.22, 0.19), LIGHT),
    ],
    "sword": [  # a broad blade, point up, with a dark guard and hilt
        (convex((0, -1), (0.24, -0.7), (0.24, 0.35), (-0.24, 0.35), (-0.24, -0.7)), BODY),
        (union(box(0, 0.42, 0.58, 0.1), box(0, 0.7, 0.11, 0.28)), DARK),
    ],
    "lantern": [  # a ribbed paper globe with caps and a tassel
        (_GLOBE, BODY), (both(_GLOBE, rim(ellipse(0, 0.0, 0.4, 0.6), 0.05)), SHADE),
        (union(quartered(box(0, 0.62, 0.36, 0.1)), stroke((0, 0.65), (0, 0.95), 0.08),
               stroke((0, -0.65), (0, -0.95), 0.06)), DARK),
    ],
    "umbrella": [  # a canopy with a scalloped edge over a hooked handle
        (union(stroke((0, -0.1), (0, 0.8), 0.08), stroke((0, 0.85), (0.25, 0.85), 0.08)), DARK),
        (without(both(circle(0, 0.08, 0.98), above(0.08)),
                 mirrored(union(ellipse(0.66, 0.12, 0.3, 0.16), ellipse(0, 0.12, 0.3, 0.16)))), BODY),
    ],
    "hat": [  # a tall hat with a band and a brim
        (box(0, -0.2, 0.56, 0.6), BODY), (box(0, 0.22, 0.56, 0.13), DARK), (ellipse(0, 0.52, 0.98, 0.24), BODY),
    ],
    "crown": [  # three points with a band and jewels
        (union(box(0, 0.4, 0.8, 0.32), mirrored(convex((0.8, 0.4), (0.95, -0.6), (0.25, 0.3))),
               convex((0, -0.85), (-0.4, 0.3), (0.4, 0.3))), BODY),
        (mirrored(union(circle(0, 0.42, 0.14), circle(0.5, 0.42, 0.14))), LIGHT),
    ],
    "key": [  # a ring, a shaft and two teeth
        (union(
            without(circle(0, -0.48, 0.5), circle(0, -0.48, 0.22)), box(0, 0.45, 0.14, 0.52),
            box(0.28, 0.86, 0.26, 0.11), box(0.24, 0.5, 0.22, 0.11),
        ), BODY),
    ],
    "cup": [  # a mug with a handle on the right and a pale rim
        (rim(circle(0.5, 0.1, 0.34), 0.12), SHADE),
        (convex((-0.88, -0.55), (0.48, -0.55), (0.32, 0.85), (-0.72, 0.85)), BODY),
        (ellipse(-0.2, -0.56, 0.68, 0.2), LIGHT),
    ],
    "apple": [  # a stem before two lobes, a leaf and a gleam
        (stroke((0, -0.3), (0.05, -0.85), 0.08), DARK), (mirrored(ellipse(0.34, 0.22, 0.5, 0.68)), BODY),
        (_leaning_leaf, SHADE), (ellipse(-0.45, 0.05, 0.12, 0.2), LIGHT),
    ],
}  # fmt: skip
