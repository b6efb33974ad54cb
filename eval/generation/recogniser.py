"""The recogniser: detects the things and the background of a miniature picture, and compares them with a scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from data.cli import UserError, one_line
from data.miniature.scene import BACKGROUNDS, COLOURS, KINDS, SIZES, Scene

GRID = 8  # cells on a side; a cell predicts whether an object's centre lies in it, and what that object is
FIELDS = [1, 2, len(KINDS), len(COLOURS), len(SIZES)]  # presence, offset, kind, colour, size
TOUCH_DISTANCE = 0.42  # two things nearer than this, one above the other, touch: the upper one is on the lower one


@dataclass(frozen=True)
class Group:
    """Equal objects found in a picture; x and y are their mean centre in shares of the width."""

    kind: str
    colour: str
    size: str
    count: int
    x: float
    y: float


@dataclass(frozen=True)
class RecognisedScene:
    """The content of a picture."""

    groups: tuple[Group, ...]
    background: str


@dataclass(frozen=True)
class SceneMatch:
    """A recognised scene against the true one; every field but the two counts is for the whole scene."""

    FIELDS: ClassVar = ("exact", "counts", "sizes", "relations", "background", "all_but_size")
    num_things: int  # things in the true scene
    num_matched: int  # of these, those that the picture shows in the right kind and colour
    exact: bool  # all kinds and colours are there and nothing else is
    counts: bool
    sizes: bool
    relations: bool
    background: bool

    @property
    def all_but_size(self) -> bool:
        """Kinds, colours, counts, relations and background are right."""
        return self.exact and self.counts and self.relations and self.background


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
    )  # fmt: skip


def _halving(channels: int, out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Recogniser(nn.Module):
    """A residual network from pictures [n, 3, 64, 64] in -1..1 to cells [n, fields, 8, 8] and backgrounds [n, 8]."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        first, second, third = 24, 48, 112  # widths of the feature maps of 32x32, 16x16 and 8x8
        self.stem = _halving(3, first, kernel=5)
        self.halve = _halving(first, second, kernel=3)
        self.middle = _block(second)
        self.shrink = _halving(second, third, kernel=3)
        self.deep = nn.ModuleList(_block(third) for _ in range(3))
        self.cells = nn.Conv2d(third, sum(FIELDS), 1)
        self.background = nn.Linear(third, len(BACKGROUNDS))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Activations at strides 2, 4 and 8, for a loss on what a picture looks like."""
        half = self.stem(pictures)
        quarter = self.halve(half)
        quarter = F.relu(quarter + self.middle(quarter))
        eighth = self.shrink(quarter)
        for block in self.deep:
            eighth = F.relu(eighth + block(eighth))
        return [half, quarter, eighth]

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Cell scores and background scores."""
        deep = self.features(pictures)[-1]
        return self.cells(deep), self.background(deep.mean((2, 3)))


def load_recogniser(folder: Path) -> Recogniser:
    """The committed recogniser, on the CPU in fp32."""
    network = Recogniser()
    path = folder / "model.safetensors"
    try:
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path}: not the recogniser's weights ({one_line(error)})") from error
    return network.eval()


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    """[n, 64, 64, 3] bytes as [n, 3, 64, 64] in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pictures(output: Tensor) -> NDArray[np.uint8]:
    """[n, 3, h, w] in -1..1 as [n, h, w, 3] bytes."""
    pictures: NDArray[np.uint8] = ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pictures


@torch.no_grad()
def recognise(network: Recogniser, pictures: NDArray[np.uint8], chunk: int = 256) -> list[RecognisedScene]:
    """The content of each of the pictures [n, 64, 64, 3]."""
    scenes: list[RecognisedScene] = []
    for start in range(0, len(pictures), chunk):
        cells, backgrounds = network(as_input(pictures[start : start + chunk]))
        scenes += _decode(cells, backgrounds)
    return scenes


def _decode(cells: Tensor, backgrounds: Tensor) -> list[RecognisedScene]:
    """Objects are the cells with a presence above one half that is the highest of its 3x3 neighbourhood."""
    presence, offset, kind, colour, size = torch.split(cells, FIELDS, dim=1)
    peak = (presence > 0) & (presence >= F.max_pool2d(presence, 3, 1, 1))
    picture, _, row, column = peak.nonzero(as_tuple=True)
    shift = offset[picture, :, row, column]
    x = ((column + 0.5 + shift[:, 0]) / GRID).tolist()
    y = ((row + 0.5 + shift[:, 1]) / GRID).tolist()
    named = [field[picture, :, row, column].argmax(1).tolist() for field in (kind, colour, size)]
    objects_by_picture: list[list[tuple[int, int, int, float, float]]] = [[] for _ in cells]
    for index, *rest in zip(picture.tolist(), *named, x, y, strict=True):
        objects_by_picture[index].append(tuple(rest))
    return [
        RecognisedScene(_groups(objects), BACKGROUNDS[background])
        for objects, background in zip(objects_by_picture, backgrounds.argmax(1).tolist(), strict=True)
    ]


def _groups(objects: Sequence[tuple[int, int, int, float, float]]) -> tuple[Group, ...]:
    """Objects of one kind and colour as a group, of the size that most of them have."""
    groups = []
    for kind, colour in dict.fromkeys((one[0], one[1]) for one in objects):
        same = [one for one in objects if one[:2] == (kind, colour)]
        sizes = [one[2] for one in same]
        size = max(sorted(set(sizes)), key=sizes.count)
        x, y = (sum(one[axis] for one in same) / len(same) for axis in (3, 4))
        groups.append(Group(KINDS[kind], COLOURS[colour], SIZES[size], len(same), x, y))
    return tuple(groups)


def relation_holds(relation: str, subject: Group, landmark: Group) -> bool:
    """Whether the subject is where the relation says, as seen from the landmark."""
    dx, dy = subject.x - landmark.x, subject.y - landmark.y
    touching = abs(dx) < 0.2 and -TOUCH_DISTANCE < dy < 0
    if relation == "on":
        return touching
    along = {"left": -dx, "right": dx, "above": -dy, "below": dy}[relation]
    across = dy if relation in ("left", "right") else dx
    return along > abs(across) and not (relation == "above" and touching)


def match_scene(scene: Scene, recognised: RecognisedScene) -> SceneMatch:
    """Compare a recognised scene with the true one."""
    groups = {(group.kind, group.colour): group for group in recognised.groups}
    keys = [(thing, (thing.kind, thing.colour)) for thing in scene.things]
    pairs = [(thing, groups[key]) for thing, key in keys if key in groups]
    all_found = len(pairs) == len(scene.things)
    return SceneMatch(
        num_things=len(scene.things),
        num_matched=len(pairs),
        exact=all_found and len(groups) == len(scene.things),
        counts=all_found and all(thing.count == group.count for thing, group in pairs),
        sizes=all_found and all(thing.size == group.size for thing, group in pairs),
        relations=all_found and _relations_hold(scene.relations, [group for _, group in pairs]),
        background=scene.background == recognised.background,
    )


def _relations_hold(relations: Sequence[str], groups: Sequence[Group]) -> bool:
    """Whether the groups, in the order of the scene's things, are where its relations say."""
    if len(groups) < 3:
        return not relations or relation_holds(relations[0], groups[0], groups[1])
    first, second, third = groups
    sign = 1 if relations[0] == "left" else -1
    upper = third.y < min(first.y, second.y) - 0.2
    lower = third.y > max(first.y, second.y) + 0.2
    return sign * (second.x - first.x) > 0.2 and (upper if relations[1] == "above" else lower)


def match_shares(matches: Sequence[SceneMatch]) -> dict[str, float]:
    """The share of things in the right kind and colour, and for each field the share of scenes."""
    things = sum(match.num_matched for match in matches) / sum(match.num_things for match in matches)
    shares = {field: float(np.mean([getattr(match, field) for match in matches])) for field in SceneMatch.FIELDS}
    return {"things": things, **shares}
