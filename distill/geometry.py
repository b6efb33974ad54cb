"""Geometry of a UNet's cross-attentions: key and value maps and stored queries, computed once for all steps."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from data.cli import UserError

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
    """All cross-attentions of a UNet and `metric` [width, width], their keys' and values' common quadratic form."""

    metric: torch.Tensor
    layers: tuple[CrossAttention, ...]

    @property
    def width(self) -> int:
        """The width of the states that the UNet reads."""
        return len(self.metric)

    @cached_property
    def shares(self) -> torch.Tensor:
        """`share` of every cross-attention, [layers]."""
        return torch.tensor([layer.share for layer in self.layers], device=self.metric.device)


def attend(layer: CrossAttention, states: torch.Tensor) -> torch.Tensor:
    """Attention outputs [batch, heads, n, d] of the stored queries for `states` [batch, length, width]."""
    batch, length, _ = states.shape
    keys, values = (
        F.linear(states, weight).view(batch, length, layer.heads, -1).transpose(1, 2)
        for weight in (layer.key, layer.value)
    )
    query = layer.query.view(len(layer.query), layer.heads, -1).transpose(0, 1)
    return F.scaled_dot_product_attention(query.expand(batch, -1, -1, -1), keys, values, scale=layer.scale)


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
    return Geometry(tensors["metric"], layers)
