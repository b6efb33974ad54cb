"""Rows of all ranks, with gradients to all of them (`accelerator.gather` has none)."""

import torch
import torch.distributed as dist
from torch.autograd.function import FunctionCtx


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


def own_rows(rows: torch.Tensor) -> torch.Tensor:
    """Where this rank's `rows` lie among those that `gather_rows` returns, int64 [n]."""
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return torch.arange(len(rows), device=rows.device) + rank * len(rows)
