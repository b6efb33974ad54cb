"""Training data of the miniature's models: captions with the positions of their nouns, pictures, cell targets."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from tokenizers import pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from data.files import atomic_file
from data.miniature.corpus import REGISTERS, caption_pair
from data.miniature.english import plural
from data.miniature.render import render_batch
from data.miniature.scene import BACKGROUNDS, COLOURS, KINDS, SIZES, Scene, place_objects
from data.miniature.words import NOUNS
from eval.generation.recogniser import GRID

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77


def learn_tokenizer(texts: Iterable[str], size: int, folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer of at most `size` ids, saved to `folder`: 256 bytes, the same ending a word, merges, two marks.

    As in CLIP's own vocabulary every byte can stand inside and at the end of a word, so that any text has tokens.
    """
    blank = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size - 258, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), end_of_word_suffix="</w>",
        min_frequency=20, show_progress=False,
    )  # fmt: skip
    blank.train_from_iterator(texts, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(blank.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer


KIND_OF_NOUN = {
    name: kind
    for kind in KINDS
    for single in (*NOUNS[kind].en.common, *NOUNS[kind].en.fresh)
    for name in (single, plural(single))
}
# Longest names first (top hat before hat); brackets after a noun belong to it; backgrounds are not things.
NOUN = re.compile(
    r"(?:starry|starlit|night sky|stars of|city towers|snow field|snowy \w+|sunset)"
    r"|\b(" + "|".join(sorted(map(re.escape, KIND_OF_NOUN), key=len, reverse=True)) + r")\b(?: \([^)]*\))?"
)  # fmt: skip


@dataclass(frozen=True)
class TokenizedCaptions:
    """`ids` [n, 77] padded with end-of-text; `length` [n] with both marks; `noun` [n, 3] the position where a thing's
    phrase ends, -1 without such a thing."""

    ids: Tensor
    length: Tensor
    noun: Tensor


def english_captions(scenes: list[Scene], seed: int, rows: NDArray[np.intp] | None = None) -> list[str]:
    """One English caption for each of the scenes, or of their `rows`: a random register, all words.

    A pure function of (scenes, seed) row by row: a row's caption does not depend on the other rows.
    """
    register_ids = np.random.default_rng(seed).integers(len(REGISTERS), size=len(scenes))
    return [
        caption_pair(scenes[row], REGISTERS[register_ids[row]], seed + row, "any", complete=False).en
        for row in (range(len(scenes)) if rows is None else rows.tolist())
    ]


def phrase_ends(text: str, scene: Scene) -> list[int]:
    """The character after each thing's noun phrase, or -1."""
    ends: dict[str, int] = {}
    for match in NOUN.finditer(text.lower()):
        if match.group(1):
            ends.setdefault(KIND_OF_NOUN[match.group(1)], match.end())
    return [ends.get(thing.kind, -1) for thing in scene.things]


def tokenise_captions(scenes: list[Scene], texts: list[str], tokenizer: CLIPTokenizer) -> TokenizedCaptions:
    """Tokenise texts and find the positions of their things."""
    ids = np.full((len(texts), MAX_LENGTH), tokenizer.eos_token_id, np.int16)
    length = np.zeros(len(texts), np.int16)
    noun = np.full((len(texts), 3), -1, np.int16)
    for row, encoding in enumerate(tokenizer.backend_tokenizer.encode_batch(texts)):
        length[row] = min(len(encoding.ids), MAX_LENGTH)
        ids[row, : length[row]] = encoding.ids[:MAX_LENGTH]
        for index, end in enumerate(phrase_ends(texts[row], scenes[row])):  # the last token of each thing's phrase
            stops = enumerate(stop for _, stop in encoding.offsets[:MAX_LENGTH])
            noun[row, index] = max((position for position, stop in stops if 0 < stop <= end), default=-1)
    return TokenizedCaptions(torch.from_numpy(ids).long(), torch.from_numpy(length), torch.from_numpy(noun))


def cached_array(
    path: Path, dtype: DTypeLike, shape: tuple[int, ...], compute: Callable[[slice], ArrayLike], batch: int = 256
) -> NDArray[Any]:
    """The array of `path`, memory-mapped; where there is none, compute(rows) writes it batch by batch, whole or not."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            array = np.lib.format.open_memmap(partial, "w+", dtype, shape)
            for start in tqdm(range(0, len(array), batch), desc=path.stem, mininterval=5):
                rows = slice(start, min(start + batch, len(array)))
                array[rows] = compute(rows)
            array.flush()
    loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(loaded) != shape[0]:
        raise ValueError(f"{path} holds {len(loaded)} rows, not {shape[0]}; remove it")
    return loaded


def rendered_images(scenes: list[Scene], seed: int, path: Path) -> NDArray[np.uint8]:
    """[n, 64, 64, 3], read from `path` or rendered into it; picture i has the seed `seed + i`."""

    def render(rows: slice) -> NDArray[np.uint8]:
        return render_batch(scenes[rows], range(seed + rows.start, seed + rows.stop))

    return cached_array(path, np.uint8, (len(scenes), 64, 64, 3), render)


def cell_targets(scenes: list[Scene]) -> Tensor:
    """[n, 8, 8, 6] int8: presence, x and y offset of the centre in hundredths of a cell, kind, colour, size."""
    targets = np.zeros((len(scenes), GRID, GRID, 6), np.int8)
    for index, scene in enumerate(scenes):
        for item in place_objects(scene):
            thing = scene.things[item.thing]
            column, row = int(item.x * GRID), int(item.y * GRID)
            dx, dy = item.x * GRID - column - 0.5, item.y * GRID - row - 0.5
            targets[index, row, column] = (
                1, round(100 * dx), round(100 * dy),
                KINDS.index(thing.kind), COLOURS.index(thing.colour), SIZES.index(thing.size),
            )  # fmt: skip
    return torch.from_numpy(targets)


def background_indices(scenes: list[Scene]) -> Tensor:
    """[n] indices into BACKGROUNDS."""
    return torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])


@dataclass(frozen=True)
class SceneSet:
    """Scenes and their pictures [n, 64, 64, 3]."""

    scenes: list[Scene]
    images: NDArray[np.uint8]

    @cached_property
    def cells(self) -> Tensor:
        """`cell_targets` of the scenes."""
        return cell_targets(self.scenes)

    @cached_property
    def backgrounds(self) -> Tensor:
        """`background_indices` of the scenes."""
        return background_indices(self.scenes)


def batch_rows(number: int, batch: int, seed: int, step: int) -> NDArray[np.intp]:
    """The rows of a step: a pure function of its arguments; every row once before any comes again."""
    steps = number // batch
    epoch, at = divmod(step, steps)
    order = np.random.default_rng((seed, epoch)).permutation(number)
    return order[at * batch : (at + 1) * batch]
