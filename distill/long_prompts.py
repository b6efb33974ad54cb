"""AUTOMATIC1111's prompt syntax for a diffusers pipeline: weights, BREAK, and prompts longer than the encoder's limit.

`(x)` has weight 1.1, `(x:1.5)` the weight that it names, `[x]` 1 / 1.1; nested weights are multiplied. A backslash
makes a bracket plain text, and so does full width: （ ） are punctuation. BREAK ends a chunk. A prompt of more tokens
than the encoder takes runs through it in chunks, which end behind a comma where one is near: also ，、。 and ；.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    """A token id with its weight, and whether it is the last of a clause."""

    id: int
    weight: float
    ends_clause: bool


def parse_weights(prompt: str) -> list[WeightedText]:
    """The prompt without its brackets; one that is never closed holds to the end, one never opened is text."""
    spans: list[WeightedText] = []
    open_brackets: dict[str, list[int]] = {"(": [], "[": []}

    def scale_from(start: int, factor: float) -> None:
        spans[start:] = [replace(span, weight=span.weight * factor) for span in spans[start:]]

    for match in _TOKEN_PATTERN.finditer(prompt):
        token, number = match[0], _parse_number(match[1])
        if token in open_brackets:
            open_brackets[token].append(len(spans))
        elif number is not None and open_brackets["("]:
            scale_from(open_brackets["("].pop(), number)
        elif token == ")" and open_brackets["("]:
            scale_from(open_brackets["("].pop(), ROUND_WEIGHT)
        elif token == "]" and open_brackets["["]:
            scale_from(open_brackets["["].pop(), SQUARE_WEIGHT)
        elif token == "BREAK":
            spans.append(WeightedText(None))
        else:
            spans.append(WeightedText(token[1:] if token.startswith("\\") and len(token) > 1 else token))
    for kind, factor in (("(", ROUND_WEIGHT), ("[", SQUARE_WEIGHT)):
        for start in open_brackets[kind]:
            scale_from(start, factor)
    return _merge_equal_weights(spans)


def _parse_number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _merge_equal_weights(spans: list[WeightedText]) -> list[WeightedText]:
    """Neighbours of one weight in one span, so that no word is cut where the pattern matched a part of it."""
    merged: list[WeightedText] = []
    for span in spans:
        last = merged[-1] if merged else None
        if span.text is None:
            merged.append(WeightedText(None))
        elif last is not None and last.text is not None and last.weight == span.weight:
            merged[-1] = replace(last, text=last.text + span.text)
        else:
            merged.append(span)
    return merged


def split_chunks(prompt: str, tokenizer: Any, chunk_length: int) -> list[list[Token]]:  # noqa: ANN401  any tokenizer
    """Tokens in chunks of at most `chunk_length`; at least one chunk, which is empty for an empty prompt."""
    sections: list[list[Token]] = [[]]
    for span in parse_weights(prompt):
        if span.text is None:
            sections.append([])
        else:
            sections[-1] += _tokens(span.text, span.weight, tokenizer)
    return [chunk for section in sections for chunk in _fill_chunks(section, chunk_length)]


def _tokens(text: str, weight: float, tokenizer: Any) -> Iterator[Token]:  # noqa: ANN401
    for clause in _CLAUSE_PATTERN.findall(text):
        ids = tokenizer(clause, add_special_tokens=False, verbose=False).input_ids
        ends_clause = clause[-1:] in set(",，、。;；")
        for index, token_id in enumerate(ids, 1):
            yield Token(token_id, weight, ends_clause and index == len(ids))


def _fill_chunks(tokens: list[Token], chunk_length: int) -> Iterator[list[Token]]:
    while len(tokens) > chunk_length:
        cuts = range(chunk_length, chunk_length - BACKTRACK, -1)
        cut = next((cut for cut in cuts if tokens[cut - 1].ends_clause), chunk_length)
        yield tokens[:cut]
        tokens = tokens[cut:]
    yield tokens


def prompt_states(pipeline: Any, prompt: str, negative: str = "") -> dict[str, Tensor]:  # noqa: ANN401  untyped
    """The keyword arguments for both prompts: `pipeline(**prompt_states(pipeline, prompt, negative))`.

    Each is [1, max_length * chunks, hidden_size]; the shorter one is filled up with chunks of the empty prompt. States
    are scaled by the weights of their tokens, then all of them to their former norm (AUTOMATIC1111 restores the mean,
    which may be zero). Without weights, and within one chunk, they equal the pipeline's own states of the prompt.
    """
    tokenizer, max_length = pipeline.tokenizer, int(pipeline.text_encoder.config.max_position_embeddings)
    chunks = [
        split_chunks(pipeline.maybe_convert_prompt(text, tokenizer), tokenizer, max_length - 2)
        for text in (prompt, negative)
    ]
    longest = max(map(len, chunks))
    padded = [[*some, *([[]] * (longest - len(some)))] for some in chunks]
    names = ("prompt_embeds", "negative_prompt_embeds")
    return {name: _encode_chunks(pipeline, some, max_length) for name, some in zip(names, padded, strict=True)}


@torch.no_grad()
def _encode_chunks(pipeline: Any, chunks: list[list[Token]], max_length: int) -> Tensor:  # noqa: ANN401
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    ids = torch.full((len(chunks), max_length), tokenizer.pad_token_id)
    weights = torch.ones(len(chunks), max_length)
    for row, tokens in enumerate(chunks):
        row_ids = [tokenizer.bos_token_id, *(token.id for token in tokens), tokenizer.eos_token_id]
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        weights[row, 1 : len(tokens) + 1] = torch.tensor([token.weight for token in tokens])
    states: Tensor = encoder(ids.to(encoder.device)).last_hidden_state
    if not torch.equal(weights, torch.ones_like(weights)):
        weighted = states * weights.to(states)[..., None]
        states = weighted * (states.norm() / weighted.norm())
    return states.reshape(1, -1, states.shape[-1])
