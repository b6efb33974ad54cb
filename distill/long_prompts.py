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

ROUND_WEIGHT, SQUARE_WEIGHT = 1.1, 1 / 1.1
BACKTRACK = 20
"""How many tokens of a full chunk may move to the next, for the chunk to end behind a comma."""
_TOKEN_PATTERN = re.compile(r"\\[()\[\]\\]|:\s*([+-]?[.\d]+)\s*\)|[()\[\]]|\bBREAK\b|[^\\()\[\]:B]+|.", re.DOTALL)
_CLAUSE_PATTERN = re.compile(r"[^,，、。;；]*[,，、。;；]*")


@dataclass(frozen=True)
class WeightedText:
    """Text of one weight; `text` None is a BREAK."""

    text: str | None
    weight: float = 1.0


@dataclass(frozen=True)
class Token:
    """An id with its weight, and whether a clause ends behind it."""

    id: int
    weight: float
    ends_clause: bool


def parse_weights(prompt: str) -> list[WeightedText]:
    """The prompt without its brackets; one that is never closed holds to the end, one never opened is text."""
    spans: list[list[Any]] = []
    open_brackets: dict[str, list[int]] = {"(": [], "[": []}

    def scale_from(start: int, factor: float) -> None:
        for piece in spans[start:]:
            piece[1] *= factor

    for match in _TOKEN_PATTERN.finditer(prompt):
        token, weight_text = match[0], match[1]
        if token in open_brackets:
            open_brackets[token].append(len(spans))
        elif weight_text is not None and open_brackets["("] and _parse_number(weight_text) is not None:
            scale_from(open_brackets["("].pop(), float(weight_text))
        elif token == ")" and open_brackets["("]:
            scale_from(open_brackets["("].pop(), ROUND_WEIGHT)
        elif token == "]" and open_brackets["["]:
            scale_from(open_brackets["["].pop(), SQUARE_WEIGHT)
        elif token == "BREAK":
            spans.append([None, 1.0])
        else:
            spans.append([token[1:] if token.startswith("\\") and len(token) > 1 else token, 1.0])
    for kind, factor in (("(", ROUND_WEIGHT), ("[", SQUARE_WEIGHT)):
        for start in open_brackets[kind]:
            scale_from(start, factor)
    return _merge_equal_weights(spans)


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _merge_equal_weights(spans: list[list[Any]]) -> list[WeightedText]:
    """Neighbours of one weight as one piece, so that words are not cut where the parser read them in parts."""
    merged: list[WeightedText] = []
    for text, weight in spans:
        last = merged[-1] if merged else None
        if text is not None and last is not None and last.text is not None and last.weight == weight:
            merged[-1] = WeightedText(last.text + text, weight)
        else:
            merged.append(WeightedText(text, weight if text is not None else 1.0))
    return merged


def split_chunks(prompt: str, tokenizer: Any, chunk_length: int) -> list[list[Token]]:  # noqa: ANN401  any tokenizer
    """Tokens in chunks of at most `room`; at least one chunk, which is empty for an empty prompt."""
    sections: list[list[Token]] = [[]]
    for piece in parse_weights(prompt):
        if piece.text is None:
            sections.append([])
        else:
            sections[-1] += _tokens(piece.text, piece.weight, tokenizer)
    return [chunk for part in sections for chunk in _fill_chunks(part, chunk_length)]


def _tokens(text: str, weight: float, tokenizer: Any) -> Iterator[Token]:  # noqa: ANN401
    for clause in _CLAUSE_PATTERN.findall(text):
        ids = tokenizer(clause, add_special_tokens=False, verbose=False).input_ids
        ends_clause = clause[-1:] in set(",，、。;；")
        for index, token_id in enumerate(ids, 1):
            yield Token(token_id, weight, ends_clause and index == len(ids))


def _fill_chunks(tokens: list[Token], chunk_length: int) -> Iterator[list[Token]]:
    while len(tokens) > chunk_length:
        clause_ends = (
            place for place in range(chunk_length, chunk_length - BACKTRACK, -1) if tokens[place - 1].ends_clause
        )
        cut = next(clause_ends, chunk_length)
        yield tokens[:cut]
        tokens = tokens[cut:]
    yield tokens


def prompt_states(pipeline: Any, prompt: str, negative: str = "") -> dict[str, Tensor]:  # noqa: ANN401  untyped
    """`pipeline(**prompt_states(pipeline, prompt, negative))`: the keywords that stand for both prompts.

    Each is [1, slots * chunks, width]; the shorter one is filled up with chunks of the empty prompt. States are scaled
    by the weights of their tokens, then all of them to their former norm (AUTOMATIC1111 takes the mean, which may be
    zero). Without weights, and within the slots, they are what the pipeline makes of the prompt itself.
    """
    tokenizer, max_length = pipeline.tokenizer, int(pipeline.text_encoder.config.max_position_embeddings)
    prompt_chunks = [
        split_chunks(pipeline.maybe_convert_prompt(text, tokenizer), tokenizer, max_length - 2)
        for text in (prompt, negative)
    ]
    num_chunks = max(map(len, prompt_chunks))
    padded = [[*some, *([[]] * (num_chunks - len(some)))] for some in prompt_chunks]
    names = ("prompt_embeds", "negative_prompt_embeds")
    return {name: _encode_chunks(pipeline, some, max_length) for name, some in zip(names, padded, strict=True)}


@torch.no_grad()
def _encode_chunks(pipeline: Any, chunk_tokens: list[list[Token]], max_length: int) -> Tensor:  # noqa: ANN401
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = torch.full((len(chunk_tokens), max_length), padding)
    weights = torch.ones(len(chunk_tokens), max_length)
    for row, tokens in enumerate(chunk_tokens):
        row_ids = [start, *(token.id for token in tokens), end]
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        weights[row, 1 : len(tokens) + 1] = torch.tensor([token.weight for token in tokens])
    states: Tensor = encoder(ids.to(encoder.device)).last_hidden_state
    if not torch.equal(weights, torch.ones_like(weights)):
        weighted = states * weights.to(states)[..., None]
        states = weighted * (states.norm() / weighted.norm())
    return states.reshape(1, -1, states.shape[-1])
