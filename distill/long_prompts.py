"""Prompts in AUTOMATIC1111's manner for a diffusers pipeline: weights, BREAK, and more tokens than there are slots.

`(x)` counts 1.1 times, `(x:1.5)` as often as it says, `[x]` 1 / 1.1 times, each inside the other; a backslash makes a
bracket plain text, and so does full width: （ ） are punctuation. BREAK ends a chunk. A prompt of more tokens than
slots runs through the encoder in chunks, and a chunk ends behind a comma where one is near its end: also ，、。 and ；.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROUND, SQUARE = 1.1, 1 / 1.1
BACKTRACK = 20
"""How many tokens of a full chunk may move to the next, for the chunk to end behind a comma."""
_PARTS = re.compile(r"\\[()\[\]\\]|:\s*([+-]?[.\d]+)\s*\)|[()\[\]]|\bBREAK\b|[^\\()\[\]:B]+|.", re.DOTALL)
_CLAUSES = re.compile(r"[^,，、。;；]*[,，、。;；]*")


@dataclass(frozen=True)
class Piece:
    """Text of one weight; `text` None is a BREAK."""

    text: str | None
    weight: float = 1.0


@dataclass(frozen=True)
class Token:
    """An id with its weight, and whether a clause ends behind it."""

    id: int
    weight: float
    ends_clause: bool


def pieces(prompt: str) -> list[Piece]:
    """The prompt without its brackets; one that is never closed holds to the end, one never opened is text."""
    found: list[list[Any]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, factor: float) -> None:
        for piece in found[start:]:
            piece[1] *= factor

    for match in _PARTS.finditer(prompt):
        part, said = match[0], match[1]
        if part in opened:
            opened[part].append(len(found))
        elif said is not None and opened["("] and _number(said) is not None:
            weigh(opened["("].pop(), float(said))
        elif part == ")" and opened["("]:
            weigh(opened["("].pop(), ROUND)
        elif part == "]" and opened["["]:
            weigh(opened["["].pop(), SQUARE)
        elif part == "BREAK":
            found.append([None, 1.0])
        else:
            found.append([part[1:] if part.startswith("\\") and len(part) > 1 else part, 1.0])
    for kind, factor in (("(", ROUND), ("[", SQUARE)):
        for start in opened[kind]:
            weigh(start, factor)
    return _joined(found)


def _number(said: str) -> float | None:
    try:
        return float(said)
    except ValueError:
        return None


def _joined(found: list[list[Any]]) -> list[Piece]:
    """Neighbours of one weight as one piece, so that words are not cut where the parser read them in parts."""
    joined: list[Piece] = []
    for text, weight in found:
        last = joined[-1] if joined else None
        if text is not None and last is not None and last.text is not None and last.weight == weight:
            joined[-1] = Piece(last.text + text, weight)
        else:
            joined.append(Piece(text, weight if text is not None else 1.0))
    return joined


def chunks(prompt: str, tokenizer: Any, room: int) -> list[list[Token]]:  # noqa: ANN401  any tokenizer
    """Tokens in chunks of at most `room`; at least one chunk, which is empty for an empty prompt."""
    parts: list[list[Token]] = [[]]
    for piece in pieces(prompt):
        if piece.text is None:
            parts.append([])
        else:
            parts[-1] += _tokens(piece.text, piece.weight, tokenizer)
    return [chunk for part in parts for chunk in _filled(part, room)]


def _tokens(text: str, weight: float, tokenizer: Any) -> Iterator[Token]:  # noqa: ANN401
    for clause in _CLAUSES.findall(text):
        ids = tokenizer(clause, add_special_tokens=False, verbose=False).input_ids
        ended = clause[-1:] in set(",，、。;；")
        for place, number in enumerate(ids, 1):
            yield Token(number, weight, ended and place == len(ids))


def _filled(tokens: list[Token], room: int) -> Iterator[list[Token]]:
    while len(tokens) > room:
        ends = (place for place in range(room, room - BACKTRACK, -1) if tokens[place - 1].ends_clause)
        cut = next(ends, room)
        yield tokens[:cut]
        tokens = tokens[cut:]
    yield tokens


def prompt_states(pipeline: Any, prompt: str, negative: str = "") -> dict[str, Tensor]:  # noqa: ANN401  untyped
    """`pipeline(**prompt_states(pipeline, prompt, negative))`: the keywords that stand for both prompts.

    Each is [1, slots * chunks, width]; the shorter one is filled up with chunks of the empty prompt. States are scaled
    by the weights of their tokens, then all of them to their former norm (AUTOMATIC1111 takes the mean, which may be
    zero). Without weights, and within the slots, they are what the pipeline makes of the prompt itself.
    """
    tokenizer, slots = pipeline.tokenizer, int(pipeline.text_encoder.config.max_position_embeddings)
    both = [chunks(pipeline.maybe_convert_prompt(text, tokenizer), tokenizer, slots - 2) for text in (prompt, negative)]
    most = max(map(len, both))
    filled = [[*some, *([[]] * (most - len(some)))] for some in both]
    names = ("prompt_embeds", "negative_prompt_embeds")
    return {name: _states(pipeline, some, slots) for name, some in zip(names, filled, strict=True)}


@torch.no_grad()
def _states(pipeline: Any, some: list[list[Token]], slots: int) -> Tensor:  # noqa: ANN401
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = torch.full((len(some), slots), padding)
    weights = torch.ones(len(some), slots)
    for row, tokens in enumerate(some):
        known = [start, *(token.id for token in tokens), end]
        ids[row, : len(known)] = torch.tensor(known)
        weights[row, 1 : len(tokens) + 1] = torch.tensor([token.weight for token in tokens])
    states: Tensor = encoder(ids.to(encoder.device)).last_hidden_state
    if not torch.equal(weights, torch.ones_like(weights)):
        weighted = states * weights.to(states)[..., None]
        states = weighted * (states.norm() / weighted.norm())
    return states.reshape(1, -1, states.shape[-1])
