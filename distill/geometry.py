"""Geometry of a UNet's cross-attentions: key and value maps and stored queries, computed once for all steps."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
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


@dataclass(frozen=True)
class Geometry:
    """All cross-attentions of a UNet and `metric` [width, width], their keys' and values' common quadratic form."""

    metric: torch.Tensor
    layers: tuple[CrossAttention, ...]

    @property
    def width(self) -> int:
        """The width of the states that the UNet reads."""
        return len(self.metric)


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
