"""Sentence pairs: the same scene said in English and in Chinese, in one register."""

from dataclasses import dataclass
from random import Random

from data.miniature.chinese import say_chinese
from data.miniature.english import say_english
from data.miniature.scene import Scene
from data.miniature.words import QUALITIES, Wording

REGISTERS = ("caption", "prompt", "verse", "subtitle", "encyclopedia")


@dataclass(frozen=True)
class Pair:
    """One scene in both languages; `zh` may hold English words when the pair is a mixed prompt."""

    en: str
    zh: str
    register: str


def say(
    scene: Scene, register: str, seed: int, wording: Wording, complete: bool = True, mixed: bool | None = None
) -> Pair:
    """A pair that says the scene: a pure function of its arguments.

    `complete=False` leaves the background out of one pair in ten. `mixed=None` mixes one prompt in six.
    """
    random = Random(f"{seed}/{register}/{wording}")
    place = complete or random.random() > 0.1
    mix = register == "prompt" and random.random() < 1 / 6 if mixed is None else mixed
    tags = random.sample(QUALITIES, random.randint(0, 2)) if register == "prompt" else []
    english = say_english(scene, register, random, wording, tuple(en for en, _ in tags), place)
    chinese = say_chinese(scene, register, random, wording, tuple(zh for _, zh in tags), place, mix)
    return Pair(english, chinese, register)
