import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.miniature.render import RGB, render, render_batch, uniform_noise
from data.miniature.scene import (
    BACKGROUNDS,
    CARRIERS,
    COLOURS,
    HALF_EXTENT,
    KINDS,
    RELATIONS,
    SIZES,
    Scene,
    Thing,
    is_held_out,
    place_objects,
    sample_scenes,
    scene_from_json,
    scene_json,
    split_of,
)

CAT, BOAT = Thing("cat", "red"), Thing("boat", "blue", "large")


def test_the_world_is_as_wide_as_promised() -> None:
    assert len(set(KINDS)) == len(KINDS) >= 30
    assert len(COLOURS) == len(RGB) == 8
    assert len(BACKGROUNDS) == 8
    assert set(RELATIONS) == {"left", "right", "above", "below", "on"}
    assert set(CARRIERS) <= set(KINDS)


@pytest.mark.parametrize(
    ("things", "relations"),
    [
        ((), ()),
        ((CAT, CAT), ("left",)),
        ((CAT, BOAT), ()),
        ((CAT,), ("left",)),
        ((CAT, BOAT), ("beside",)),
        ((CAT, BOAT, Thing("sun", "red")), ("above", "below")),
        ((Thing("cat", "red", "small", 5),), ()),
        ((Thing("cat", "red", "small", 3), BOAT), ("left",)),
        ((Thing("cat", "red", "large"), BOAT), ("on",)),
        ((CAT, Thing("boat", "red", "small")), ("on",)),
    ],
)
def test_what_cannot_be_drawn_is_refused(things: tuple[Thing, ...], relations: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"scene holds|things need|three things|counts of|stands on"):
        Scene(things, "sea", relations)


def test_splits_share_no_combination() -> None:
    train, test = sample_scenes(2000, 1, "train"), sample_scenes(300, 2, "test")
    seen = {(t.kind, t.colour, s.background) for s in train for t in s.things}
    assert not any(is_held_out(*one) for one in seen)
    assert all(any(is_held_out(t.kind, t.colour, s.background) for t in s.things) for s in test)
    assert {split_of(s) for s in train} == {"train"}
    held = sum(is_held_out(k, c, b) for k in KINDS for c in COLOURS for b in BACKGROUNDS)
    assert 0.07 < held / (32 * 8 * 8) < 0.13
    # every kind, and every colour, stays in training on every background
    assert {(k, b) for k, _, b in seen} == {(k, b) for k in KINDS for b in BACKGROUNDS}


def test_scenes_by_lot_are_a_pure_function_and_cover_the_world() -> None:
    scenes = sample_scenes(3000, 7, "train")
    assert scenes == sample_scenes(3000, 7, "train")
    assert len(set(scenes)) == 3000
    assert {len(s.things) for s in scenes} == {1, 2, 3}
    assert {s.relations[0] for s in scenes if s.relations} == set(RELATIONS)
    assert {t.count for s in scenes for t in s.things} == {1, 2, 3, 4}
    assert {t.size for s in scenes for t in s.things} == set(SIZES)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_objects_stay_inside_apart_and_where_the_relation_says(seed: int) -> None:
    scene = sample_scenes(1, seed, "train")[0]
    items = place_objects(scene)
    assert len(items) == sum(thing.count for thing in scene.things)
    for item in items:
        assert item.x - item.half > 0
        assert item.x + item.half < 1
        assert item.y - item.half > 0
        assert item.y + item.half < 1
    for one in items:
        for two in items:
            if one is not two and scene.relations[:1] != ("on",):
                assert max(abs(one.x - two.x), abs(one.y - two.y)) > one.half + two.half
    if len(scene.things) == 2:
        (x0, y0), (x1, y1) = (np.mean([(i.x, i.y) for i in items if i.thing == thing], axis=0) for thing in (0, 1))
        holds = {"left": x0 < x1, "right": x0 > x1, "above": y0 < y1, "below": y0 > y1, "on": y0 < y1}
        assert holds[scene.relations[0]]
    assert scene_from_json(scene_json(scene)) == scene


def test_on_touches_and_above_does_not() -> None:
    things = (CAT, BOAT)
    on, above = (place_objects(Scene(things, "sea", (name,))) for name in ("on", "above"))
    gap = {name: abs(items[0].y - items[1].y) - HALF_EXTENT["medium"] - HALF_EXTENT["large"]
           for name, items in (("on", on), ("above", above))}  # fmt: skip
    assert gap["on"] < 0 < gap["above"]
    assert on[0].thing == 1  # what bears is drawn first


def test_pictures_are_a_pure_function_of_scene_and_seed() -> None:
    scenes = sample_scenes(40, 3, "train")
    batch = render_batch(scenes, range(40))
    assert batch.shape == (40, 64, 64, 3)
    assert batch.dtype == np.uint8
    for index in (0, 7, 39):
        np.testing.assert_array_equal(batch[index], render(scenes[index], index))
    again = render_batch(scenes, range(100, 140))
    assert (batch != again).any((1, 2, 3)).all()  # no two renders are the same
    assert np.abs(batch.astype(int) - again).mean() < 40  # and yet of the same scene


@pytest.mark.parametrize("width", [64, 128])
def test_colour_and_place_are_in_the_pixels(width: int) -> None:
    scene = Scene((Thing("star", "red", "large"), Thing("cloud", "blue", "large")), "snow", ("left",))
    picture = render(scene, 5, width).astype(int)
    red, blue = picture[width // 2, width // 4], picture[int(width * 0.55), width * 3 // 4]
    assert red[0] > 180
    assert red[1:].max() < 90
    assert blue[2] > 180
    assert blue[:2].max() < 120


def test_edges_are_smooth() -> None:
    picture = render(Scene((Thing("moon", "white", "large"),), "night"), 1).astype(int).sum(2)
    assert len(np.unique(picture[20:44, 20:44])) > 40


def test_every_kind_looks_different_from_every_other() -> None:
    scenes = [Scene((Thing(kind, "red", "large"),), "snow") for kind in KINDS]
    flat = render_batch(scenes, [0] * len(KINDS)).reshape(len(KINDS), -1).astype(float)
    apart = np.abs(flat[:, None] - flat[None]).mean(2) + 99 * np.eye(len(KINDS))
    assert apart.min() > 1.5


def test_sizes_and_counts_change_how_much_is_covered() -> None:
    def covered(thing: Thing) -> int:
        bare = render(Scene((dataclasses.replace(thing, kind="key", size="small", count=1),), "desert"), 0).astype(int)
        shown = render(Scene((thing,), "desert"), 0).astype(int)
        return int((np.abs(shown - bare).sum(2) > 60).sum())

    sun = Thing("sun", "blue")
    small, medium, large = (covered(dataclasses.replace(sun, size=size)) for size in SIZES)
    assert small < medium < large
    assert covered(dataclasses.replace(sun, count=4)) > 3 * medium


def test_lots_are_uniform_and_keyed_by_seed() -> None:
    lots = uniform_noise(np.arange(4000, dtype=np.uint64), 8)
    assert lots.min() >= 0
    assert lots.max() < 1
    np.testing.assert_allclose(lots.mean(0), 0.5, atol=0.02)
    assert np.abs(np.corrcoef(lots.T) - np.eye(8)).max() < 0.06
    np.testing.assert_array_equal(uniform_noise(np.array([17], np.uint64), 8)[0], lots[17])
