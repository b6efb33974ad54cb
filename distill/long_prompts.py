"""AUTOMATIC1111's prompt syntax for a diffusers pipeline: weights, BREAK, and prompts longer than the encoder's limit.

`(x)` has weight 1.1, `(x:1.5)` the weight that it names, `[x]` 1 / 1.1; nested weights are multiplied. A backslash
makes a bracket plain text. Full-width （x） is punctuation, but （x：1.5） is `(x:1.5)`. BREAK ends a chunk. A prompt
of more tokens than the encoder takes runs through it in chunks, which end behind a comma near their end: also ，、。；.
Prompt editing, alternation, AND and `<lora:...>` are not supported and named in a warning.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from data.cli import UserError

ROUND_WEIGHT, SQUARE_WEIGHT = 1.1, 1 / 1.1
BACKTRACK = 20
"""Most tokens of a full chunk that move to the next, for the chunk to end behind a comma."""
_TOKEN_PATTERN = re.compile(
    r"\\[()\[\]\\（）]|[:：]\s*([+-]?[.．\d]+)\s*[)）]|[()\[\]（）]|\bBREAK\b|[^\\()\[\]（）:：B]+|.", re.DOTALL
)
_CLAUSE_PATTERN = re.compile(r"[^,，、。;；]*[,，、。;；]*")
_UNSUPPORTED = {
    "prompt editing such as [a:b:0.5]": re.compile(r"\[[^\[\]]*[:：]\s*[.．\d]+\s*\]"),
    "alternation such as [a|b]": re.compile(r"\[[^\[\]]*\|[^\[\]]*\]"),
    "AND": re.compile(r"\bAND\b"),
    "extra networks such as <lora:name:1>": re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>"),
}


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
    """The prompt without its brackets; an opening one without its partner reaches to the end, a closing one is text."""
    spans: list[WeightedText] = []
    rounds: list[tuple[int, bool]] = []  # open brackets: where their text begins, and whether they are full-width,
    squares: list[int] = []  # which are text as well, until a weight before the closing one says otherwise

    def scale_from(start: int, factor: float) -> None:
        spans[start:] = [replace(span, weight=span.weight * factor) for span in spans[start:]]

    for match in _TOKEN_PATTERN.finditer(prompt):
        token, weight = match[0], _parse_number(match[1])
        if token in ("(", "["):
            rounds.append((len(spans), False)) if token == "(" else squares.append(len(spans))
        elif weight is not None and rounds:
            start, is_wide = rounds.pop()
            if is_wide:
                spans[start] = WeightedText("")
            scale_from(start, weight)
        elif token == ")" and any(not is_wide for _, is_wide in rounds):
            start, is_wide = rounds.pop()
            while is_wide:
                start, is_wide = rounds.pop()
            scale_from(start, ROUND_WEIGHT)
        elif token == "]" and squares:
            scale_from(squares.pop(), SQUARE_WEIGHT)
        elif token == "BREAK":
            spans.append(WeightedText(None))
        else:
            if token == "（":
                rounds.append((len(spans), True))
            elif token == "）" and rounds and rounds[-1][1]:
                rounds.pop()
            spans.append(WeightedText(token[1:] if token.startswith("\\") and len(token) > 1 else token))
    for start, is_wide in rounds:
        scale_from(start, 1.0 if is_wide else ROUND_WEIGHT)
    for start in squares:
        scale_from(start, SQUARE_WEIGHT)
    return _merge_equal_weights(spans)


def _parse_number(text: str | None) -> float | None:
    try:
        return None if text is None else float(unicodedata.normalize("NFKC", text))
    except ValueError:
        return None


def _merge_equal_weights(spans: list[WeightedText]) -> list[WeightedText]:
    """Join neighbours of equal weight, so that no word is cut where the pattern matched a part of it."""
    merged: list[WeightedText] = []
    for span in spans:
        last = merged[-1] if merged else None
        if span.text is None:
            merged.append(WeightedText(None))
        elif last is not None and last.text is not None and last.weight == span.weight:
            merged[-1] = replace(last, text=last.text + span.text)
        elif span.text:
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
        ids = _all_vectors(tokenizer(clause, add_special_tokens=False, verbose=False).input_ids, tokenizer)
        ends_clause = clause[-1:] in set(",，、。;；")
        for index, token_id in enumerate(ids, 1):
            yield Token(token_id, weight, ends_clause and index == len(ids))


def _all_vectors(ids: list[int], tokenizer: Any) -> list[int]:  # noqa: ANN401
    """`ids` with every vector of a textual inversion behind its first, which alone has the name that is typed.

    diffusers does this in the text, where it finds no name in capitals or traditional characters.
    """
    added = tokenizer.get_added_vocab()
    names = {token_id: name for name, token_id in added.items()}
    complete: list[int] = []
    for place, token_id in enumerate(ids):
        complete.append(token_id)
        further = 1
        while (name := f"{names.get(token_id)}_{further}") in added:
            if added[name] not in ids[place + 1 : place + 1 + further]:  # else written out
                complete.append(added[name])
            further += 1
    return complete


def _fill_chunks(tokens: list[Token], chunk_length: int) -> Iterator[list[Token]]:
    while len(tokens) > chunk_length:
        cuts = range(chunk_length, chunk_length - BACKTRACK, -1)
        cut = next((cut for cut in cuts if tokens[cut - 1].ends_clause), chunk_length)
        yield tokens[:cut]
        tokens = tokens[cut:]
    yield tokens


def prompt_states(
    pipeline: Any,  # noqa: ANN401  diffusers is untyped
    prompt: str | Sequence[str],
    negative: str | Sequence[str] | None = None,
    clip_skip: int | None = None,
) -> dict[str, Tensor]:
    """The keyword arguments for both prompts: `pipeline(**prompt_states(pipeline, prompt, negative))`.

    Each is [prompts, max_length * chunks, hidden_size]; shorter ones are filled up with chunks of the empty prompt. One
    negative prompt serves all. States are scaled by the weights of their tokens, then all of a prompt to their former
    norm (AUTOMATIC1111 restores the mean, which may be zero). Without weights, and within one chunk, they equal the
    pipeline's own states. `clip_skip` n takes the states n layers before the last, as the pipeline's argument does.
    SDXL's pipelines get both encoders' states side by side, counted from those before the last layer, and the pooled
    states [prompts, dim] of the first chunk; without a negative prompt zeros, where the pipeline itself has zeros.
    Weights that overflow raise UserError.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    negatives = [negative or ""] * len(prompts) if negative is None or isinstance(negative, str) else list(negative)
    if len(negatives) != len(prompts):
        raise UserError(f"prompt_states: {len(prompts)} prompts and {len(negatives)} negative ones; give one for each")
    _warn_unsupported(prompts + negatives)
    parts = [""] if getattr(pipeline, "text_encoder_2", None) is None else ["", "_2"]
    tokenizers, length = [getattr(pipeline, f"tokenizer{part}") for part in parts], _max_length(pipeline.text_encoder)
    split = [[split_chunks(text, each, length - 2) for text in prompts + negatives] for each in tokenizers]
    longest = max((len(chunks) for by_prompt in split for chunks in by_prompt), default=1)
    layer = _StateLayer(clip_skip, before_last=len(parts) == 2)
    encoded = [
        [_encode_chunks(pipeline, part, [*chunks, *([[]] * (longest - len(chunks)))], layer) for chunks in by_prompt]
        for part, by_prompt in zip(parts, split, strict=True)
    ]
    states = [torch.cat([each.states for each in row], dim=2) for row in zip(*encoded, strict=True)]
    count = len(prompts)
    found = {"prompt_embeds": torch.cat(states[:count]), "negative_prompt_embeds": torch.cat(states[count:])}
    if len(parts) == 2:
        pooled = torch.cat([each.pooled for each in encoded[-1]])
        found |= {"pooled_prompt_embeds": pooled[:count], "negative_pooled_prompt_embeds": pooled[count:]}
        if negative is None and pipeline.config.force_zeros_for_empty_prompt:
            found |= {name: torch.zeros_like(value) for name, value in found.items() if name.startswith("negative")}
    return found


def _max_length(encoder: Any) -> int:  # noqa: ANN401
    return int(encoder.config.max_position_embeddings)


@dataclass(frozen=True)
class _StateLayer:
    """The layer whose states a UNet reads: n before the last with the final norm, or n before SDXL's without."""

    clip_skip: int | None
    before_last: bool

    def states(self, encoder: Any, output: Any) -> Tensor:  # noqa: ANN401
        """The states [chunks, length, width] of an encoder's output."""
        if self.before_last:
            states: Tensor = output.hidden_states[-((self.clip_skip or 0) + 2)]
            return states
        states = output.last_hidden_state
        if self.clip_skip is not None:  # the norm lies one module deeper before transformers 5
            inner = encoder.text_model if hasattr(encoder, "text_model") else encoder
            states = inner.final_layer_norm(output.hidden_states[-(self.clip_skip + 1)])
        return states


@dataclass(frozen=True)
class _EncodedPrompt:
    """States [1, max_length * chunks, width], and of an encoder with projection the first chunk's pooled [1, dim]."""

    states: Tensor
    pooled: Tensor


def _warn_unsupported(prompts: Sequence[str]) -> None:
    present = [name for name, pattern in _UNSUPPORTED.items() if any(map(pattern.search, prompts))]
    if present:
        message = f"prompt_states does not support {', '.join(present)}: read as plain text"
        warnings.warn(message, UserWarning, stacklevel=3)


@torch.no_grad()
def _encode_chunks(pipeline: Any, part: str, chunks: list[list[Token]], layer: _StateLayer) -> _EncodedPrompt:  # noqa: ANN401
    tokenizer, encoder = getattr(pipeline, f"tokenizer{part}"), getattr(pipeline, f"text_encoder{part}")
    ids = torch.full((len(chunks), _max_length(encoder)), tokenizer.pad_token_id)
    weights = torch.ones(ids.shape)
    for row, tokens in enumerate(chunks):
        row_ids = [tokenizer.bos_token_id, *(token.id for token in tokens), tokenizer.eos_token_id]
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        weights[row, 1 : len(tokens) + 1] = torch.tensor([token.weight for token in tokens])
    output = encoder(ids.to(pipeline._execution_device), output_hidden_states=True)
    states = layer.states(encoder, output)
    if not torch.equal(weights, torch.ones_like(weights)):
        weighted = states * weights.to(states)[..., None]
        states = weighted * (states.norm() / weighted.norm())
        if not states.isfinite().all():
            largest = float(weights.abs().max())
            raise UserError(f"prompt_states: a weight of {largest:g} overflows; give weights below 10")
    return _EncodedPrompt(states.reshape(1, -1, states.shape[-1]), output[0][:1])
