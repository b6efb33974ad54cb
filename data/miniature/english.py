"""The English half of the grammar: captions of a scene in each of the five registers."""

from random import Random

from data.miniature.scene import Scene, Thing
from data.miniature.words import (
    ENGLISH_COLOURS,
    ENGLISH_NUMBERS,
    ENGLISH_RELATIONS,
    ENGLISH_SIZES,
    NOUNS,
    PLACES,
    Choices,
    Wording,
)

# {core} is the things and where they stand, {place} a phrase of place, {setting} a noun for the place
ENGLISH_TEMPLATES = {
    "caption": Choices(
        ("{core} {place}.", "{place}, {core}.", "there {be} {core} {place}.", "a picture of {core} {place}."),
        ("this image shows {core} {place}.", "seen {place}: {core}."),
    ),
    "prompt": Choices(
        ("{core}, {setting}", "{setting}, {core}", "{core} {place}", "{core}, {setting} background"),
        ("an illustration of {core}, background: {setting}", "{core} with {setting} behind"),
    ),
    "verse": Choices(
        ("{place}, behold {core}.", "lo! {core} {place}.", "{place} / I dreamt of {core}.", "O {core} / {place}!"),
        ("my heart recalls {core} / {place}.", "{place}, / alone I found {core}."),
    ),
    "subtitle": Choices(
        ("look! {core} {place}!", "hey, do you see {core} {place}?", "wow, {core} {place}.",
         "I can see {core} {place}."),
        ("check it out, {core} {place}!", "{core} {place}, can you believe it?"),
    ),
    "encyclopedia": Choices(
        ("the scene comprises {core}; the setting is {setting}.", "setting: {setting}. Contents: {core}.",
         "the figure depicts {core} {place}."),
        ("this plate records {core}, the surroundings being {setting}.",),
    ),
}  # fmt: skip
ENGLISH_WITHOUT_PLACE = {  # the place is left out
    "caption": "{core}.", "prompt": "{core}", "verse": "behold {core}.", "subtitle": "look, {core}!",
    "encyclopedia": "the figure depicts {core}.",
}  # fmt: skip


def plural(noun: str) -> str:
    """The plural of a noun or of a noun phrase's last word."""
    if noun.endswith("fish"):
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def english_noun_phrase(thing: Thing, register: str, random: Random, wording: Wording) -> str:
    """A thing with number, size and colour; medium size is mostly left unsaid, a prompt may drop the article."""
    noun = NOUNS[thing.kind].en.sample(random, wording)
    colour = ENGLISH_COLOURS[thing.colour].sample(random, wording)
    size_stated = thing.size != "medium" or random.random() >= 0.75
    size = ENGLISH_SIZES[thing.size].sample(random, wording) if size_stated else ""
    name = noun if thing.count == 1 else plural(noun)
    if register == "encyclopedia" and random.random() < 0.3:
        return f"{ENGLISH_NUMBERS[thing.count]} {name} ({', '.join(part for part in (size, colour) if part)})"
    described = " ".join(part for part in (size, colour, name) if part)
    if thing.count > 1:
        digits = register == "prompt" and random.random() < 0.3
        return f"{thing.count if digits else ENGLISH_NUMBERS[thing.count]} {described}"
    if register == "prompt" and random.random() < 0.4:
        return described
    return f"one {described}" if random.random() < 0.1 else _article(described)


def _core(scene: Scene, register: str, random: Random, wording: Wording) -> str:
    phrases = [english_noun_phrase(thing, register, random, wording) for thing in scene.things]
    if not scene.relations:
        return phrases[0]
    relation = ENGLISH_RELATIONS[scene.relations[0]].sample(random, wording)
    if len(phrases) == 2:
        return f"{phrases[0]} {relation} {phrases[1]}"
    third = ENGLISH_RELATIONS[scene.relations[1]].sample(random, wording)
    joint = "," if register == "prompt" else ", and"
    return f"{phrases[0]} {relation} {phrases[1]}{joint} {phrases[2]} {third} them"


def english_caption(
    scene: Scene, register: str, random: Random, wording: Wording, qualities: tuple[str, ...], with_place: bool
) -> str:
    """The scene as one English sentence or prompt of the register, the background left out without `with_place`."""
    phrase, setting = (choices.sample(random, wording) for choices in PLACES[scene.background][:2])
    templates = ENGLISH_TEMPLATES[register]
    held_out = wording == "fresh" or (wording == "any" and random.random() < 0.25)
    text = ENGLISH_WITHOUT_PLACE[register]
    if with_place:
        text = random.choice(templates.fresh if held_out else templates.common)
    be = "is" if scene.things[0].count == 1 else "are"
    text = text.format(core=_core(scene, register, random, wording), place=phrase, setting=setting, be=be)
    if register == "prompt":
        return ", ".join((text, *qualities))
    return text[0].upper() + text[1:]
