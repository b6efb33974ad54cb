"""What a picture of the miniature holds: the truth of a scene, and how scenes are drawn by lot and split."""

import zlib
from dataclasses import dataclass
from random import Random
from typing import Literal

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
        """Refuse what cannot be drawn or told apart."""
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


def draw_scene(random: Random) -> Scene:
    """A scene by lot, of either split: 40 % of one thing, 45 % of two, 15 % of three."""
    lot = random.random()
    number = 1 if lot < 0.4 else 2 if lot < 0.85 else 3
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


def draw_scenes(number: int, seed: int, split: Split) -> list[Scene]:
    """`number` different scenes of one split; a pure function of its arguments."""
    random, found = Random(seed), dict[Scene, None]()
    while len(found) < number:
        scene = draw_scene(random)
        if split_of(scene) == split:
            found[scene] = None
    return list(found)
