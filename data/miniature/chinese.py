"""The Chinese half of the grammar: modifiers before nouns, measure words, no articles, landmarks first."""

from random import Random

from data.miniature.scene import Scene, Thing
from data.miniature.words import (
    CHINESE_COLOURS,
    CHINESE_RELATIONS,
    CHINESE_SIZES,
    NOUNS,
    NUMBERS,
    PLACES,
    SHORT_COLOURS,
    SIZE_CHARACTERS,
    Choices,
    Wording,
)

# {here} is a phrase of place, {setting} a noun for it; {there} a clause of existence (有…), {core} one of place (在…)
CHINESE_TEMPLATES = {
    "caption": Choices(
        ("{here}{there}。", "{here}，{core}。", "{core}，背景是{setting}。", "图中{there}，背景是{setting}。"),
        ("这张图里，{here}{there}。", "画的是{setting}，{there}。"),
    ),
    "prompt": Choices(
        ("{core}，{setting}", "{setting}，{core}", "{here}，{core}", "{core}，{setting}背景"),
        ("一幅插画，{core}，背景：{setting}", "以{setting}为背景，{core}"),
    ),
    "verse": Choices(
        ("{here}，{core}。", "{here}忽见{core}。", "君不见，{here}，{core}。", "{here}独徘徊，但见{core}。"),
        ("{here}又逢{core}。", "梦回{setting}，{core}。"),
    ),
    "subtitle": Choices(
        ("快看！{here}{there}！", "嘿，你看见没，{here}{there}？", "哇，{here}{there}。", "我看见{here}{there}呢。"),
        ("你瞧，{here}{there}！", "{here}竟然{there}，你敢信？"),
    ),
    "encyclopedia": Choices(
        ("画面内容为{core}；背景为{setting}。", "背景：{setting}。内容：{core}。", "本图描绘{here}{there}。"),
        ("此图版记录了{core}，环境为{setting}。",),
    ),
}  # fmt: skip
CHINESE_WITHOUT_PLACE = {
    "caption": "{core}。", "prompt": "{core}", "verse": "但见{core}。", "subtitle": "快看，{there}！",
    "encyclopedia": "本图描绘{core}。",
}  # fmt: skip


def chinese_noun_phrase(thing: Thing, register: str, random: Random, wording: Wording, mixed: bool = False) -> str:
    """A thing with number, measure word, size and colour; with `mixed`, the noun is English."""
    names = NOUNS[thing.kind]
    noun = (names.en if mixed else names.zh).sample(random, wording)
    number = NUMBERS[thing.count] + random.choice(names.measures)
    colour, short = CHINESE_COLOURS[thing.colour].sample(random, wording), SHORT_COLOURS[thing.colour]
    size_stated = thing.size != "medium" or random.random() < 0.25
    size = CHINESE_SIZES[thing.size].sample(random, wording) if size_stated else ""
    if register == "encyclopedia" and random.random() < 0.3:
        inside = colour + (f"，{SIZE_CHARACTERS[thing.size]}型" if size_stated else "")
        return f"{noun}{number}（{inside}）"
    if register == "verse" and not mixed and random.random() < 0.5:  # 小红鱼两尾: the number follows, as in old verse
        return {"small": "小", "medium": "", "large": "巨"}[thing.size] + short + noun + number
    draw = random.random()
    if thing.size != "medium" and draw < 0.4:
        described = f"{colour}的{SIZE_CHARACTERS[thing.size]}{noun}"
    elif not mixed and draw < 0.65 and wording != "fresh":
        described = f"{size}{short}{noun}"
    else:
        described = f"{size}{colour}{'的' if draw < 0.88 else ''}{noun}"
    if register == "prompt" and thing.count == 1 and random.random() < 0.4:
        return described
    if register == "subtitle" and thing.count == 1 and random.random() < 0.5:
        number = number[1:]  # 有只猫: speech drops 一
    return number + described


def _clauses(scene: Scene, register: str, random: Random, wording: Wording, mixed: bool) -> dict[str, str]:
    """`core` (…在…的左边) and `there` (…的左边有…), with the same phrases."""
    # 在小红鱼两尾的左边 would jar: what is stood by is said plainly; 条鱼在… would be wrong: before 在, 一 stays.
    landmark = "prompt" if register == "prompt" else "caption"
    subject = "caption" if register == "subtitle" else register
    registers = (register, landmark, landmark)
    phrases = [
        chinese_noun_phrase(thing, registers[index], random, wording, mixed and random.random() < 0.6)
        for index, thing in enumerate(scene.things)
    ]
    if not scene.relations:
        return {"core": phrases[0], "there": "有" + phrases[0]}
    side = ("的" if random.random() < 0.5 else "") + CHINESE_RELATIONS[scene.relations[0]].sample(random, wording)
    subject_phrase = chinese_noun_phrase(scene.things[0], subject, random, wording, mixed and random.random() < 0.3)
    place = phrases[1] + side
    core = random.choice((f"{subject_phrase}在{place}", f"{place}有{subject_phrase}", f"{place}是{subject_phrase}"))
    there = f"，{place}有{phrases[0]}"  # 星空下，两条鱼的左边有…
    if random.random() < 0.4:
        there = f"有{phrases[1]}，{side.removeprefix('的')}有{phrases[0]}"
    if len(phrases) == 3:
        third, other = CHINESE_RELATIONS[scene.relations[1]].sample(random, wording), phrases[2]
        last = random.choice((f"，它们{third}还有{other}", f"，它们的{third}是{other}", f"，{other}在它们的{third}"))
        core, there = core + last, there + last
    return {"core": core, "there": there}


def chinese_caption(
    scene: Scene, register: str, random: Random, wording: Wording, qualities: tuple[str, ...],
    with_place: bool, mixed: bool,
) -> str:  # fmt: skip
    """The scene as one Chinese sentence or prompt of the register; `mixed` puts English words into it."""
    here, setting = (choices.sample(random, wording) for choices in PLACES[scene.background][2:])
    if mixed and random.random() < 0.4:
        setting = PLACES[scene.background][1].sample(random, wording)
    text = CHINESE_WITHOUT_PLACE[register]
    if with_place:
        templates = CHINESE_TEMPLATES[register]
        text = random.choice(templates.fresh if wording == "fresh" else templates.common)
    text = text.format(here=here, setting=setting, **_clauses(scene, register, random, wording, mixed))
    text = text.replace("，，", "，").replace("竟然，", "竟然")
    if register != "prompt":
        return text
    comma = random.choice(("，", "，", ", ", ","))
    return "，".join((text, *qualities)).replace("，", comma)
