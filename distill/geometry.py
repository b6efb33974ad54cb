"""Geometry of a UNet's cross-attentions: key and value maps and stored queries, computed once for all steps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel

from data.cli import UserError
from distill.loading import ENCODER_PARTS, load_any_tokenizer, load_pretrained_model
from distill.text_tower import EncoderOutput, encode_ids, load_pretrained, padded_ids

FORMAT = "yuqiao unet geometry 1"


@dataclass(frozen=True)
class CrossAttention:
    """One cross-attention: `query` [n, inner] stored queries; `key`, `value` [inner, width] its linear maps."""

    name: str
    heads: int
    scale: float
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    share: float = 1.0
    """Variance between prompts over the mean square of the attention outputs; 1 in files of earlier releases."""

    def drawn(self, draw: int, queries: int) -> "CrossAttention":
        """The same with one of the blocks of `queries` stored queries, whose order is random; `draw` chooses it."""
        start = draw % max(1, len(self.query) // queries) * queries
        return replace(self, query=self.query[start : start + queries])


@dataclass(frozen=True)
class Geometry:
    """All cross-attentions of a UNet and `metric` [width, width], their keys' and values' common quadratic form.

    `widths` are those of the encoders whose states lie side by side, two for SDXL; empty for one encoder.
    """

    metric: torch.Tensor
    layers: tuple[CrossAttention, ...]
    widths: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The width of the states that the UNet reads."""
        return len(self.metric)

    @cached_property
    def shares(self) -> torch.Tensor:
        """`share` of every cross-attention, [layers]."""
        return torch.tensor([layer.share for layer in self.layers], device=self.metric.device)

    def of_encoder(self, place: int) -> "Geometry":
        """The same with the metric of one encoder's columns alone; `place` 0 is the first."""
        start, stop = sum(self.widths[:place]), sum(self.widths[: place + 1])
        maps = [weight[:, start:stop] for layer in self.layers for weight in (layer.key, layer.value)]
        return replace(self, metric=kv_quadratic_form(maps))


def attend(layer: CrossAttention, states: torch.Tensor) -> torch.Tensor:
    """Attention outputs [batch, heads, n, d] of the stored queries for `states` [batch, length, width]."""
    batch, length, _ = states.shape
    keys, values = (
        F.linear(states, weight).view(batch, length, layer.heads, -1).transpose(1, 2)
        for weight in (layer.key, layer.value)
    )
    query = layer.query.view(len(layer.query), layer.heads, -1).transpose(0, 1)
    return F.scaled_dot_product_attention(query.expand(batch, -1, -1, -1), keys, values, scale=layer.scale)


def attention_errors(
    layers: Sequence[CrossAttention], student: torch.Tensor, teacher: torch.Tensor, dims: tuple[int, ...] = ()
) -> torch.Tensor:
    """Squared error of the attention outputs, and the teacher's squares, by cross-attention: [2, ..., layers].

    Sums over `dims` of [batch, heads, n, d], by default all, for states [batch, length, width] of the same texts.
    """
    errors, norms = [], []
    for layer in layers:
        target = attend(layer, teacher)
        errors.append((attend(layer, student) - target).square().sum(dims))
        norms.append(target.square().sum(dims))
    return torch.stack([torch.stack(errors, dim=-1), torch.stack(norms, dim=-1)])


def share_between(outputs: torch.Tensor) -> float:
    """Share of the mean square of `outputs` [prompts, ...] that is the variance between prompts."""
    variance = (outputs - outputs.mean(dim=0)).square().sum() / (len(outputs) - 1) * len(outputs)
    return (variance / outputs.square().sum()).item()


def kv_quadratic_form(keys_and_values: list[torch.Tensor]) -> torch.Tensor:
    """Mean of W^T W over maps [inner, width], each scaled to trace 1, then scaled to trace `width`."""
    width = keys_and_values[0].shape[1]
    parts = [weight.T @ weight / weight.square().sum() for weight in keys_and_values]
    return torch.stack(parts).mean(dim=0) * width


def read_geometry(path: Path, device: torch.device, option: str = "losses.unet_geometry") -> Geometry:
    """The geometry that `python -m distill.unet_geometry` wrote to `path`, float32 on `device`."""
    if not path.is_file():
        raise UserError(
            f"{option}: no file {path}; write it with python -m distill.unet_geometry --unet ID_OR_DIR --out {path}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{option}: {path} is not readable ({error}); write it again") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{option}: {path} is no UNet geometry; python -m distill.unet_geometry writes one")
    layers = tuple(
        CrossAttention(**layer, **{part: tensors[f"{i}.{part}"] for part in ("query", "key", "value")})
        for i, layer in enumerate(json.loads(metadata["layers"]))
    )
    return Geometry(tensors["metric"], layers, tuple(json.loads(metadata.get("widths", "[]"))))


GEOMETRY_PROMPTS = (
    "",
    "a photo of a cat",
    "a red helicopter taking off over snowy mountains",
    "portrait of a girl with long hair, masterpiece, best quality",
    "two men playing football on the grass",
    "cyberpunk city at night, neon lights, rain, highly detailed, 8k",
    "an old fisherman alone in a boat on a cold river, ink painting",
    "low quality, blurry, bad hands",
)
"""The empty prompt, captions and prompts as people write them; an export's golden prompts are others."""


@dataclass(frozen=True)
class GeometryPrompts:
    """What a UNet reads of GEOMETRY_PROMPTS: states [prompts, length, width], of encoders of `widths` side by side.

    `added` are SDXL's `text_embeds` [prompts, dim] and `time_ids` [prompts, 6].
    """

    states: torch.Tensor
    widths: tuple[int, ...] = ()
    added: dict[str, torch.Tensor] | None = None

    def rows(self, rows: Sequence[int]) -> "GeometryPrompts":
        """Some of the prompts."""
        added = {name: value[rows] for name, value in self.added.items()} if self.added else None
        return replace(self, states=self.states[rows], added=added)


@torch.no_grad()
def single_prompts(name: str) -> GeometryPrompts:
    """By the text encoder of a pipeline, or of its own folder."""
    option = "--teacher"
    model = load_pretrained_model(CLIPTextModel, name, option, "CLIP text encoder", dtype=torch.float32).eval()
    ids = padded_ids(load_any_tokenizer(name, option), GEOMETRY_PROMPTS, model.config.max_position_embeddings)
    return GeometryPrompts(model(input_ids=ids).last_hidden_state)


@torch.no_grad()
def pair_prompts(name: str, unet: Any) -> GeometryPrompts:  # noqa: ANN401
    """By both text encoders of an SDXL pipeline, for whole pictures of the UNet's size."""
    first, second = (_padded_output(f"{name}/{part}") for part in ENCODER_PARTS)
    states = torch.cat([first.hidden_states, second.hidden_states], dim=2)
    side = 8 * int(unet.config.sample_size)
    time_ids = torch.tensor([[side, side, 0, 0, side, side]]).expand(len(states), -1)
    widths = first.hidden_states.shape[2], second.hidden_states.shape[2]
    return GeometryPrompts(states, widths, {"text_embeds": second.pooled, "time_ids": time_ids})


def _padded_output(name: str) -> EncoderOutput:
    encoder = load_pretrained(name, "penultimate")
    ids = padded_ids(encoder.tokenizer, GEOMETRY_PROMPTS, encoder.max_length)
    return encode_ids(encoder.model, ids, encoder.state_layer)
