import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cli import UserError
from data.miniature.__main__ import main
from data.miniature.chinese import CHINESE_TEMPLATES as CHINESE
from data.miniature.corpus import REGISTERS, caption_pair
from data.miniature.english import ENGLISH_TEMPLATES as ENGLISH
from data.miniature.english import plural
from data.miniature.scene import KINDS, Scene, Thing, sample_scenes, scene_from_json
from data.miniature.words import (
    CHINESE_COLOURS,
    CHINESE_RELATIONS,
    CHINESE_SIZES,
    ENGLISH_COLOURS,
    ENGLISH_RELATIONS,
    ENGLISH_SIZES,
    NOUNS,
    NUMBERS,
    PLACES,
    SHORT_COLOURS,
    Choices,
)

TABLES = (ENGLISH_COLOURS, CHINESE_COLOURS, ENGLISH_SIZES, CHINESE_SIZES, ENGLISH_RELATIONS, CHINESE_RELATIONS)


def every(choices: Choices) -> tuple[str, ...]:
    return (*choices.common, *choices.fresh)


def one(seed: int) -> Scene:
    return sample_scenes(1, seed, "train")[0]


@given(st.integers(0, 10**6), st.sampled_from(REGISTERS), st.sampled_from(["train", "fresh"]))
@settings(max_examples=200, deadline=None)
def test_both_sides_say_every_thing_number_colour_and_place(seed: int, register: str, wording: str) -> None:
    scene = one(seed)
    pair = caption_pair(scene, register, seed, "train" if wording == "train" else "fresh", mixed=False)
    en = pair.en.lower()
    for thing in scene.things:
        names = [plural(n) if thing.count > 1 else n for n in every(NOUNS[thing.kind].en)]
        assert any(re.search(rf"\b{re.escape(name)}\b", en) for name in names), (pair.en, thing)
        assert any(name in pair.zh for name in every(NOUNS[thing.kind].zh)), (pair.zh, thing)
        assert any(colour in en for colour in every(ENGLISH_COLOURS[thing.colour]))
        assert SHORT_COLOURS[thing.colour] in pair.zh
        if thing.count > 1:
            assert any(NUMBERS[thing.count] + m in pair.zh for m in NOUNS[thing.kind].measures), (pair.zh, thing)
        if thing.size != "medium":
            assert any(size in en for size in every(ENGLISH_SIZES[thing.size]))
            assert re.search("小" if thing.size == "small" else "大|巨|庞", pair.zh) or "型" in pair.zh
    places = [phrase for choices in PLACES[scene.background] for phrase in every(choices)]
    assert any(phrase in pair.zh for phrase in places)
    assert any(phrase in en for phrase in places)
    for relation in scene.relations:
        assert any(word in en for word in every(ENGLISH_RELATIONS[relation]))
        assert any(word in pair.zh for word in every(CHINESE_RELATIONS[relation]))


@given(st.integers(0, 10**6), st.sampled_from(REGISTERS))
@settings(max_examples=150, deadline=None)
def test_sentences_are_well_formed(seed: int, register: str) -> None:
    pair = caption_pair(one(seed), register, seed, "train", mixed=False)
    assert pair == caption_pair(one(seed), register, seed, "train", mixed=False)
    assert "{" not in pair.en + pair.zh
    assert "  " not in pair.en
    assert not re.search("，，|的的|有有|，。|竟然，|色色", pair.zh), pair.zh
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", pair.en), pair.en
    assert not re.search("[a-zA-Z]", pair.zh.replace("4k", "")), pair.zh
    assert not re.search("[一-鿿]", pair.en)
    if register != "prompt":
        assert pair.zh[-1] in "。！？"
        assert pair.en[0].isupper()


def test_training_never_uses_what_is_kept_for_the_test() -> None:
    scenes = sample_scenes(1500, 11, "train")
    said = [caption_pair(scene, register, i, "train") for i, scene in enumerate(scenes) for register in REGISTERS]
    english, chinese = " | ".join(p.en.lower() for p in said), "|".join(p.zh for p in said)
    for table in TABLES:
        for choices in table.values():
            for word in choices.fresh:
                assert not re.search(rf"\b{re.escape(word)}\b", english), word
                assert word not in chinese, word
    for noun in NOUNS.values():
        known = "".join(re.escape(name) + "|" for choices in NOUNS.values() for name in choices.zh.common)
        bare = re.sub(known.rstrip("|"), "", chinese)  # 龟 stands in 乌龟 without being said by itself
        for word in noun.zh.fresh:
            assert word not in bare or word not in chinese, word
        for word in noun.en.fresh:
            if not any(word in other for choices in NOUNS.values() for other in choices.en.common):
                assert not re.search(rf"\b{re.escape(word)}\b", english), word
    for templates in (ENGLISH, CHINESE):
        for choices in templates.values():
            for text in choices.fresh:
                marks = [part for part in re.split(r"\{\w+\}", text.lower()) if len(part.strip(" ,.，。！?")) > 3]
                assert not any(part in english or part in chinese for part in marks), text


def test_fresh_sentences_stand_in_fresh_templates() -> None:
    for register in REGISTERS:
        pair = caption_pair(one(3), register, 5, "fresh", mixed=False)
        shapes = [re.escape(text).replace(r"\{core\}", ".+").replace(r"\{place\}", ".+").replace(r"\{setting\}", ".+")
                  for text in ENGLISH[register].fresh]  # fmt: skip
        assert any(re.match(shape, pair.en, re.IGNORECASE) for shape in shapes), pair.en


def test_mixed_prompts_hold_both_scripts() -> None:
    scenes = sample_scenes(200, 5, "train")
    mixed = [
        caption_pair(scene, "prompt", i, "train", mixed=True).zh.replace("4k", "") for i, scene in enumerate(scenes)
    ]
    both = [text for text in mixed if re.search("[a-z]{3}", text) and re.search("[一-鿿]", text)]
    assert len(both) > 100
    half = [text for text in mixed if "," in text]
    full = [text for text in mixed if "，" in text]
    assert half
    assert full


def test_word_order_differs_between_the_languages() -> None:
    scene = Scene((Thing("cat", "red", "small"), Thing("fish", "blue", "large", 2)), "night", ("left",))
    said = [caption_pair(scene, "caption", seed, "train") for seed in range(60)]
    assert all(p.en.lower().index("fish") > min(p.en.lower().find(n) % 999 for n in ("cat", "kitty")) for p in said)
    landmark_first = [p for p in said if p.zh.index("鱼") < p.zh.index("猫")]
    assert 20 < len(landmark_first) < 60
    assert {"条" in p.zh or "尾" in p.zh for p in said} == {True}


@pytest.mark.parametrize(
    ("noun", "many"), [("fish", "fish"), ("butterfly", "butterflies"), ("key", "keys"), ("fortress", "fortresses")]
)
def test_plurals(noun: str, many: str) -> None:
    assert plural(noun) == many


def test_no_two_kinds_share_a_name() -> None:
    for side in ("en", "zh"):
        names = [name for kind in KINDS for name in every(getattr(NOUNS[kind], side))]
        assert len(names) == len(set(names))


def test_the_command_writes_pairs_and_tests(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--pairs", "23", "--scenes", "6", "--pictures", "true"])
    rows = {r: (tmp_path / "pairs" / f"{r}.jsonl").read_text(encoding="utf-8").splitlines() for r in REGISTERS}
    assert [len(rows[r]) for r in REGISTERS] == [5, 5, 5, 5, 3]
    assert set(json.loads(rows["verse"][0])) == {"en", "zh"}
    assert any("一" <= c <= "鿿" for c in rows["verse"][0])  # Chinese stands as Chinese in the file
    for suffix in ("", ".fresh"):
        captions = [json.loads(x) for x in (tmp_path / "test" / f"captions{suffix}.jsonl").read_text().splitlines()]
        assert [c["image"] for c in captions] == [f"{i:04d}.png" for i in range(6)]
        assert all(len(c["en"]) == len(c["zh"]) == 5 for c in captions)
        prompts = [json.loads(x) for x in (tmp_path / "test" / f"prompts{suffix}.jsonl").read_text().splitlines()]
        assert [scene_from_json(p["scene"]) for p in prompts] == sample_scenes(6, 2, "test")
    assert len(list((tmp_path / "test" / "images").glob("*.png"))) == 6


def test_a_senseless_number_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 5 pairs"):
        main(["--out", str(tmp_path), "--pairs", "0"])


def test_what_is_no_scene_is_said_so() -> None:
    with pytest.raises(ValueError, match="not a scene"):
        scene_from_json({"things": [{"kind": "cat"}]})
