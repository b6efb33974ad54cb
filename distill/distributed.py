"""The precision of a device; collectives over the ranks; parameters sharded over them (FSDP2)."""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Precision = Literal["auto", "bf16", "fp32"]


def resolve_precision(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """The precision to compute in: `auto` is bf16 where `device` has products in bf16, else fp32.

    A CPU without them runs bf16 about four times slower than fp32; other libraries' checks do not see the difference.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        has_bf16 = device.type == "xpu"
    return "bf16" if has_bf16 else "fp32"


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(rows)  # type: ignore[attr-defined]
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        rows: int = ctx.rows  # type: ignore[attr-defined]
        start = dist.get_rank() * rows
        return total[start : start + rows]


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of every rank's `value`, the same on all of them; without a gradient."""
    mean = value.detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """`rows` [n, dim] of every rank, [ranks * n, dim] in rank order; a row's gradient is summed over all ranks.

    With each rank's loss the mean over its own rows, the ranks' averaged gradients equal those of one process.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    gathered: torch.Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def global_row_indices(rows: torch.Tensor) -> torch.Tensor:
    """Where this rank's `rows` lie among those that `gather_rows` returns, int64 [n]."""
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return torch.arange(len(rows), device=rows.device) + rank * len(rows)


def average_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Average over the ranks, in place; what DDP does within a backward pass that belongs to its own forward pass."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    for weight in weights:
        if weight.grad is not None and not isinstance(weight, DTensor):  # FSDP2 averages with every backward pass
            dist.all_reduce(weight.grad)
            weight.grad /= dist.get_world_size()


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


def reshard(student: nn.Module) -> None:
    """Forget the whole weights that a pass left behind, so that the next one gathers what the shares are by then."""
    if isinstance(student, FSDPModule):
        student.reshard()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be spread; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute_like(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`value` as `weight` lies: on its device, and spread as it is if they have the same shape."""
    if isinstance(weight, DTensor) and value.shape == weight.shape:
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device, copy=True)
