"""Scenes of the miniature: their content, sampling, split, placement of objects, and JSON form."""

import zlib
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal

KINDS = (
    "cat", "dog", "rabbit", "fish", "bird", "butterfly", "snake", "turtle",
    "mountain", "tree", "flower", "moon", "sun", "star", "cloud", "snowflake",
    "castle", "house", "bridge", "pagoda", "boat", "helicopter", "car", "rocket",
    "sword", "lantern", "umbrella", "hat", "crown", "key", "cup", "apple",
)  # fmt: skip
COLOURS = ("red", "yellow", "green", "blue", "purple", "pink", "white", "black")
SIZES = ("small", "medium", "large")
BACKGROUNDS = ("night", "sea", "grassland", "snow", "desert", "forest", "sunset", "city")
RELATIONS = ("left", "right", "above", "below", "on")
CARRIERS = ("turtle", "mountain", "castle", "house", "bridge", "boat", "car", "hat", "cup", "cloud")  # can bear a thing

Split = Literal["train", "test"]
HELD_OUT = 10  # one (kind, colour, background) in ten is never seen in training


@dataclass(frozen=True)
class Thing:
    """One to four equal objects; `kind`, `colour` and `size` are names from KINDS, COLOURS, SIZES."""

    kind: str
    colour: str
    size: str = "medium"
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """One to three things of different kinds on a background.

    `relations[0]` says where things[0] stands as seen from things[1]; `relations[1]` where things[2] stands as seen
    from both (above or below; then the first relation is left or right). One relation less than things.
    """

    things: tuple[Thing, ...]
    background: str
    relations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kinds = [thing.kind for thing in self.things]
        if not 1 <= len(kinds) <= 3 or len(set(kinds)) != len(kinds):
            raise ValueError(f"a scene holds one to three things of different kinds, not {kinds}")
        if len(self.relations) != len(kinds) - 1 or not set(self.relations) <= set(RELATIONS):
            raise ValueError(
                f"{len(kinds)} things need {len(kinds) - 1} of the relations {RELATIONS}: {self.relations}"
            )
        if len(kinds) == 3 and (self.relations[0] not in RELATIONS[:2] or self.relations[1] not in RELATIONS[2:4]):
            raise ValueError(f"three things stand left or right, and above or below: {self.relations}")
        top = {1: 4, 2: 2, 3: 1}[len(kinds)] if self.relations[:1] != ("on",) else 1
        if not all(1 <= thing.count <= top for thing in self.things):
            raise ValueError(f"{len(kinds)} things {self.relations} have counts of 1 to {top}")
        if self.relations == ("on",) and (self.things[0].size == "large" or self.things[1].size != "large"):
            raise ValueError("what stands on something is small or medium, and what bears it is large")


def is_held_out(kind: str, colour: str, background: str) -> bool:
    """Whether training never shows this kind in this colour on this background."""
    return zlib.crc32(f"{kind}/{colour}/{background}".encode()) % HELD_OUT == 0


def split_of(scene: Scene) -> Split:
    """`test` if the scene holds a combination that training never shows."""
    held = any(is_held_out(thing.kind, thing.colour, scene.background) for thing in scene.things)
    return "test" if held else "train"


def sample_scene(random: Random) -> Scene:
    """A random scene of either split: 40 % of one thing, 45 % of two, 15 % of three."""
    draw = random.random()
    number = 1 if draw < 0.4 else 2 if draw < 0.85 else 3
    background, kinds = random.choice(BACKGROUNDS), random.sample(KINDS, number)
    relations: tuple[str, ...] = ()
    top = (4, 2, 1)[number - 1]
    counts = [1 if random.random() < 0.4 else random.randint(1, top) for _ in kinds]
    sizes = [random.choice(SIZES) for _ in kinds]
    if number == 2:
        relations = (random.choice(RELATIONS),)
        if relations == ("on",):
            kinds[1] = random.choice([kind for kind in CARRIERS if kind != kinds[0]])
            counts, sizes = [1, 1], [random.choice(SIZES[:2]), "large"]
    if number == 3:
        relations = (random.choice(RELATIONS[:2]), random.choice(RELATIONS[2:4]))
    things = tuple(
        Thing(kind, random.choice(COLOURS), size, count) for kind, size, count in zip(kinds, sizes, counts, strict=True)
    )
    return Scene(things, background, relations)


def sample_scenes(number: int, seed: int, split: Split) -> list[Scene]:
    """`number` different scenes of one split; a pure function of its arguments."""
    random, scenes = Random(seed), dict[Scene, None]()
    while len(scenes) < number:
        scene = sample_scene(random)
        if split_of(scene) == split:
            scenes[scene] = None
    return list(scenes)


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
class PlacedObject:
    """One drawn object: indices of its thing, centre and half extent as shares of the picture's width."""

    thing: int
    x: float
    y: float
    half: float


def _centres(scene: Scene) -> list[tuple[tuple[float, float], ...]]:
    """The centres of every thing's objects, (x, y) for each; placement is coarse, so that it carries meaning."""
    counts = [thing.count for thing in scene.things]
    if not scene.relations:
        return [SOLO[counts[0]]]
    relation = scene.relations[0]
    if relation == "on":
        lower, upper = (HALF_EXTENT[thing.size] for thing in reversed(scene.things))
        return [((0.5, 0.72 - 0.86 * (lower + upper)),), ((0.5, 0.72),)]
    first = NEAR if relation in ("left", "above") else FAR
    sides = (first, NEAR + FAR - first)
    if len(counts) == 3:
        third = NEAR if scene.relations[1] == "above" else FAR
        row = NEAR + FAR - third
        return [((sides[0], row),), ((sides[1], row),), ((0.5, third),)]
    level = relation in ("left", "right")
    return [
        tuple((side, other) if level else (other, side) for other in ROW[count])
        for side, count in zip(sides, counts, strict=True)
    ]


def place_objects(scene: Scene) -> list[PlacedObject]:
    """The scene's objects in drawing order (a carrier before what stands on it)."""
    items = [
        PlacedObject(index, x, y, HALF_EXTENT[thing.size])
        for index, (thing, centres) in enumerate(zip(scene.things, _centres(scene), strict=True))
        for x, y in centres
    ]
    return items[::-1] if scene.relations[:1] == ("on",) else items


def scene_json(scene: Scene) -> dict[str, Any]:
    """A scene as plain JSON values."""
    things = [asdict(thing) for thing in scene.things]
    return {"things": things, "background": scene.background, "relations": list(scene.relations)}


def scene_from_json(value: dict[str, Any]) -> Scene:
    """The scene of a JSON value; ValueError for anything else."""
    try:
        things = tuple(
            Thing(each["kind"], each["colour"], each["size"], int(each["count"])) for each in value["things"]
        )
        return Scene(things, value["background"], tuple(value["relations"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a scene: {error!r} in {value!r}") from error
