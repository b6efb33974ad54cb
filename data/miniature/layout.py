"""Where the objects of a scene stand: a coarse, nearly fixed placement, so that position carries meaning."""

from dataclasses import dataclass

from data.miniature.scene import Scene

HALF_EXTENT = {"small": 0.127, "medium": 0.172, "large": 0.219}  # of the picture's width
NEAR, FAR = 0.255, 0.745
SOLO = {
    1: ((0.5, 0.5),),
    2: ((NEAR, 0.5), (FAR, 0.5)),
    3: ((0.5, NEAR), (NEAR, FAR), (FAR, FAR)),
    4: ((NEAR, NEAR), (FAR, NEAR), (NEAR, FAR), (FAR, FAR)),
}
ROW = {1: (0.5,), 2: (NEAR, FAR)}


@dataclass(frozen=True)
class Item:
    """One drawn object: indices of its thing, centre and half extent as shares of the picture's width."""

    thing: int
    x: float
    y: float
    half: float


def _centres(scene: Scene) -> list[tuple[tuple[float, float], ...]]:
    """The centres of every thing's objects, a tuple of (x, y) for each thing."""
    counts = [thing.count for thing in scene.things]
    if not scene.relations:
        return [SOLO[counts[0]]]
    relation = scene.relations[0]
    if relation == "on":
        lower, upper = (HALF_EXTENT[thing.size] for thing in reversed(scene.things))
        bearer = 0.72
        return [((0.5, bearer - 0.86 * (lower + upper)),), ((0.5, bearer),)]
    first = NEAR if relation in ("left", "above") else FAR
    sides = (first, NEAR + FAR - first)
    if len(counts) == 3:
        third = NEAR if scene.relations[1] == "above" else FAR
        row = NEAR + FAR - third
        return [((sides[0], row),), ((sides[1], row),), ((0.5, third),)]
    along = [ROW[count] for count in counts]
    if relation in ("left", "right"):
        return [tuple((side, other) for other in row) for side, row in zip(sides, along, strict=True)]
    return [tuple((other, side) for other in row) for side, row in zip(sides, along, strict=True)]


def place(scene: Scene) -> list[Item]:
    """The scene's objects in drawing order (what bears comes before what stands on it)."""
    items = [
        Item(index, x, y, HALF_EXTENT[thing.size])
        for index, (thing, centres) in enumerate(zip(scene.things, _centres(scene), strict=True))
        for x, y in centres
    ]
    return items[::-1] if scene.relations[:1] == ("on",) else items
