"""Passes of an encoder over the texts of a step: texts of about one length together, and large passes in chunks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from transformers import CLIPTextModelWithProjection
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from distill.text_tower import EncoderOutput, end_positions, states_before_last_layer

_POOLED_POSITIONS = 1024  # of a pass of `encode_pooled`; below that the calls of the layers cost more than padding


def split_rows(ids: torch.Tensor, tokens_at_once: int | None) -> tuple[torch.Tensor, ...]:
    """`ids` [rows, length] in chunks of at most `tokens_at_once` positions (None: all), but at least one row."""
    return (ids,) if tokens_at_once is None else torch.split(ids, max(1, tokens_at_once // ids.shape[1]))


def chunked(
    encode: Callable[[torch.Tensor], EncoderOutput], ids: torch.Tensor, tokens_at_once: int | None
) -> EncoderOutput:
    """The output of `encode` for `ids`, computed in chunks of rows."""
    return EncoderOutput.cat([encode(chunk) for chunk in split_rows(ids, tokens_at_once)])


@dataclass(frozen=True)
class Passes:
    """Several `texts`, int64 [rows, length] each, joined into as few passes as their lengths allow."""

    texts: Sequence[torch.Tensor]
    kinds: Sequence[tuple[int, bool]]
    """How each text is encoded: the length of its pass, and whether to its pooled states alone."""
    pad_id: int

    @property
    def inputs(self) -> list[tuple[torch.Tensor, bool]]:
        """The ids of every pass, the longest first, and whether it is encoded to pooled states alone."""
        return [
            (torch.cat([_padded(text, kind[0], self.pad_id) for text in self._of(kind)]), kind[1])
            for kind in self._passes
        ]

    def split(self, outputs: Sequence[EncoderOutput]) -> list[EncoderOutput]:
        """The output of each of the `texts`, in its own length, from those of the passes."""
        parts = {
            kind: iter(output.split([len(text) for text in self._of(kind)]))
            for kind, output in zip(self._passes, outputs, strict=True)
        }
        each = zip(self.texts, self.kinds, strict=True)
        return [
            next(parts[kind]) if kind[0] == text.shape[1] else next(parts[kind]).cropped(text.shape[1])
            for text, kind in each
        ]

    @property
    def positions(self) -> int:
        """Positions of all passes, padding included."""
        return sum(len(text) * length for text, (length, _) in zip(self.texts, self.kinds, strict=True))

    @property
    def _passes(self) -> list[tuple[int, bool]]:
        return sorted(set(self.kinds), reverse=True)

    def _of(self, kind: tuple[int, bool]) -> list[torch.Tensor]:
        return [text for text, its_kind in zip(self.texts, self.kinds, strict=True) if its_kind == kind]


def _padded(text: torch.Tensor, length: int, pad_id: int) -> torch.Tensor:
    return text if text.shape[1] == length else F.pad(text, (0, length - text.shape[1]), value=pad_id)


def join_passes(
    texts: Sequence[torch.Tensor], pad_id: int, launch_cost: int, pooled_only: Sequence[bool] | None = None
) -> Passes:
    """The cheapest passes over `texts`, where one costs its positions, padding included, and `launch_cost` positions.

    Texts of one length are always one pass, unless some of them are encoded to pooled states alone.
    """
    rows = Counter[int]()
    for text in texts:
        rows[text.shape[1]] += len(text)
    longest, *shorter = sorted(rows, reverse=True)

    def cost(at: dict[int, int]) -> int:
        return sum(count * at[length] for length, count in rows.items()) + launch_cost * len(set(at.values()))

    options = []
    for joined in product((True, False), repeat=len(shorter)):  # whether it is padded to the next longer length
        at = {longest: longest}
        for length, longer, join in zip(shorter, (longest, *shorter), joined, strict=False):
            at[length] = at[longer] if join else length
        options.append(at)
    best = min(options, key=cost)
    lengths = [best[text.shape[1]] for text in texts]
    return Passes(texts, [*zip(lengths, pooled_only or [False] * len(texts), strict=True)], pad_id)


def encode_pooled(model: CLIPTextModelWithProjection, ids: torch.Tensor) -> EncoderOutput:
    """The pooled embeddings of `encode_ids` alone, for a CPU.

    The last layer computes the end-of-text alone, and texts of about one length are padded together.
    """
    ends = end_positions(model, ids)
    order = ends.argsort()
    pooled = []
    for rows in order.chunk(max(1, ids.numel() // _POOLED_POSITIONS)):
        states, _, last = states_before_last_layer(model, ids[rows, : int(ends[rows].max()) + 1])
        end_states = model.text_model.final_layer_norm(_layer_at(last, states, ends[rows]))
        pooled.append(model.text_projection(end_states).float())
    return EncoderOutput.of_pooled(torch.cat(pooled)[order.argsort()])


def _layer_at(layer: CLIPEncoderLayer, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The output [batch, width] of a causal layer at one of the `positions` [batch] of each text.

    Keys and values, a sixth of the layer's products, are all that the other positions need.
    """
    batch, length, width = states.shape
    attention, normed = layer.self_attn, layer.layer_norm1(states)
    rows, heads = torch.arange(batch, device=states.device), (batch, -1, attention.num_heads, attention.head_dim)
    state = states[rows, positions]
    products = attention.q_proj(layer.layer_norm1(state)), attention.k_proj(normed), attention.v_proj(normed)
    query, key, value = (each.view(heads).transpose(1, 2) for each in products)
    seen = torch.arange(length, device=states.device) <= positions[:, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
    state = state + attention.out_proj(mixed.reshape(batch, width))
    output: torch.Tensor = state + layer.mlp(layer.layer_norm2(state))
    return output
