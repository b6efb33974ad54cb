"""The English captions that the miniature's CLIP and denoiser learn from, with the places of their noun phrases."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPTokenizer

from data.miniature.english import plural
from data.miniature.language import REGISTERS, say
from data.miniature.scene import KINDS, Scene
from data.miniature.words import NOUNS
from eval.miniature.tokens import SLOTS

NAMES = {
    name: kind
    for kind in KINDS
    for single in (*NOUNS[kind].en.common, *NOUNS[kind].en.fresh)
    for name in (single, plural(single))
}
# Longest names first (top hat before hat); what stands in brackets after a noun belongs to it; places are no things.
NOUN = re.compile(
    r"(?:starry|starlit|night sky|stars of|city towers|snow field|snowy \w+|sunset)"
    r"|\b(" + "|".join(sorted(map(re.escape, NAMES), key=len, reverse=True)) + r")\b(?: \([^)]*\))?"
)  # fmt: skip


@dataclass(frozen=True)
class Captions:
    """`ids` [n, 77] padded with end-of-text; `length` [n] with both marks; `noun` [n, 3] the slot where a thing's
    phrase ends, -1 where there is no such thing."""

    texts: list[str]
    ids: torch.Tensor
    length: torch.Tensor
    noun: torch.Tensor


def english(scenes: list[Scene], seed: int, rows: NDArray[np.intp] | None = None) -> list[str]:
    """One English caption for each of the scenes, or of their `rows`: a register by lot, every word, a place or none.

    A pure function of (scenes, seed) row by row: what a row is called does not depend on which others are asked for.
    """
    lots = np.random.default_rng(seed).integers(len(REGISTERS), size=len(scenes))
    asked = range(len(scenes)) if rows is None else rows.tolist()
    return [say(scenes[row], REGISTERS[lots[row]], seed + row, "any", complete=False).en for row in asked]


def phrase_ends(text: str, scene: Scene) -> list[int]:
    """The character after each thing's noun phrase, or -1."""
    ends: dict[str, int] = {}
    for match in NOUN.finditer(text.lower()):
        if match.group(1):
            ends.setdefault(NAMES[match.group(1)], match.end())
    return [ends.get(thing.kind, -1) for thing in scene.things]


def caption(scenes: list[Scene], texts: list[str], tokenizer: CLIPTokenizer) -> Captions:
    """Tokenise texts and find the slots of their things."""
    ids = np.full((len(texts), SLOTS), tokenizer.eos_token_id, np.int16)
    length = np.zeros(len(texts), np.int16)
    noun = np.full((len(texts), 3), -1, np.int16)
    for row, found in enumerate(tokenizer.backend_tokenizer.encode_batch(texts)):
        length[row] = min(len(found.ids), SLOTS)
        ids[row, : length[row]] = found.ids[:SLOTS]
        _mark(noun[row], texts[row], scenes[row], found.offsets)
    return Captions(texts, torch.from_numpy(ids).long(), torch.from_numpy(length), torch.from_numpy(noun))


def _mark(noun: NDArray[np.int16], text: str, scene: Scene, offsets: list[tuple[int, int]]) -> None:
    """Write the slot of the last token of each thing's phrase."""
    for index, end in enumerate(phrase_ends(text, scene)):
        slots = [slot for slot, (_, stop) in enumerate(offsets[:SLOTS]) if 0 < stop <= end]
        if end > 0 and slots:
            noun[index] = slots[-1]
