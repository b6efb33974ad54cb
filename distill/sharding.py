"""Weights, gradients and moments spread over the processes (FSDP2), for towers that do not fit a device."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(student: nn.Module, layers: Iterable[nn.Module], decoder: nn.Module | None) -> None:
    """Spread the weights over all processes, in place: each of the `layers` by itself, the rest of both towers.

    What a process holds between two uses is its own share; the weights become DTensors under their old names.
    """
    for layer in layers:
        fully_shard(layer)
    # The decoder reads the student's embeddings after its pass: they stay until the backward pass is done.
    fully_shard(student, reshard_after_forward=False)
    if decoder is not None:
        fully_shard(decoder)


def let_go(student: nn.Module) -> None:
    """Forget the whole weights that a pass left behind, so that the next one gathers what the shares are by then."""
    if isinstance(student, FSDPModule):
        student.reshard()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be spread; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`value` as `weight` lies: on its device, and spread as it is if they have the same shape."""
    if isinstance(weight, DTensor) and value.shape == weight.shape:
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device, copy=True)
