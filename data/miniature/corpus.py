"""Files of the miniature: captions of scenes in both languages as training pairs by register, and two test sets."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

from data.files import write_text
from data.miniature.chinese import chinese_caption
from data.miniature.english import english_caption
from data.miniature.scene import Scene, sample_scenes, scene_json
from data.miniature.words import QUALITIES, Wording

REGISTERS = ("caption", "prompt", "verse", "subtitle", "encyclopedia")


@dataclass(frozen=True)
class CaptionPair:
    """One scene in both languages; `zh` may hold English words when the pair is a mixed prompt."""

    en: str
    zh: str


def caption_pair(
    scene: Scene, register: str, seed: int, wording: Wording, complete: bool = True, mixed: bool | None = None
) -> CaptionPair:
    """A pair of captions of the scene, a pure function of its arguments.

    `complete=False` leaves the background out of one pair in ten. `mixed=None` mixes one prompt in six.
    """
    random = Random(f"{seed}/{register}/{wording}")
    place = complete or random.random() > 0.1
    mix = register == "prompt" and random.random() < 1 / 6 if mixed is None else mixed
    tags = random.sample(QUALITIES, random.randint(0, 2)) if register == "prompt" else []
    english = english_caption(scene, register, random, wording, tuple(en for en, _ in tags), place)
    chinese = chinese_caption(scene, register, random, wording, tuple(zh for _, zh in tags), place, mix)
    return CaptionPair(english, chinese)


TRAIN_SEED, TEST_SEED = 1, 2  # of the scenes: the models of the miniature and the student see the same training scenes
TEST_CAPTION_SEED = 10**9  # no seed of a training sentence is as large


def sample_test_scenes(number: int = 1000) -> list[Scene]:
    """The test scenes, each with a combination that no training scene has; picture i is `render(scene, i)`."""
    return sample_scenes(number, TEST_SEED, "test")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write `rows` as JSON lines, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def write_pairs(folder: Path, number: int, seed: int) -> list[Path]:
    """`folder`/REGISTER.jsonl with `number` pairs in all, keys en and zh; returns the files in REGISTERS' order."""
    pairs_per_register = -(-number // len(REGISTERS))
    scenes = sample_scenes(min(pairs_per_register, 60_000), TRAIN_SEED, "train")
    paths = []
    for register_index, register in enumerate(tqdm(REGISTERS, desc="pairs")):
        count = min(pairs_per_register, number - register_index * pairs_per_register)
        first_seed = (seed * 1000 + register_index) * 10**7
        pairs = (
            caption_pair(scenes[index % len(scenes)], register, first_seed + index, "train", complete=False)
            for index in range(count)
        )
        paths.append(folder / f"{register}.jsonl")
        write_lines(paths[-1], ({"en": pair.en, "zh": pair.zh} for pair in pairs))
    return paths


def write_test(folder: Path, number: int = 1000) -> None:
    """Retrieval captions (five registers a scene) in training and in fresh wording, and prompts for image generation.

    `captions.jsonl` and `captions.fresh.jsonl`: {"image": "000.png", "en": [5], "zh": [5]}. `prompts.jsonl` and
    `prompts.fresh.jsonl`: {"en", "zh", "mixed", "scene"}, of which `mixed` is the Chinese prompt with English words.
    """
    scenes = sample_test_scenes(number)
    wordings: dict[str, Wording] = {"": "train", ".fresh": "fresh"}
    for suffix, wording in wordings.items():
        captions, prompts = [], []
        for index, scene in enumerate(scenes):
            seed = TEST_CAPTION_SEED + index
            pairs = [caption_pair(scene, register, seed, wording, mixed=False) for register in REGISTERS]
            sides = {"en": [pair.en for pair in pairs], "zh": [pair.zh for pair in pairs]}
            captions.append({"image": f"{index:04d}.png", **sides})
            prompts.append(_prompt(scene, seed, wording))
        write_lines(folder / f"captions{suffix}.jsonl", captions)
        write_lines(folder / f"prompts{suffix}.jsonl", prompts)


def _prompt(scene: Scene, seed: int, wording: Wording) -> dict[str, Any]:
    """Captions and prompts in turn, so that images are generated from full sentences and from tag lists."""
    register = ("caption", "prompt")[seed % 2]
    pair = caption_pair(scene, register, seed, wording, mixed=False)
    mixed = caption_pair(scene, "prompt", seed, wording, mixed=True)
    return {"en": pair.en, "zh": pair.zh, "mixed": mixed.zh, "scene": scene_json(scene)}
