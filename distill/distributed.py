"""The precision of a device; collectives over the ranks; parameters sharded over them (FSDP2)."""

import ctypes
import platform
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Precision = Literal["auto", "bf16", "fp32"]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h, in bytes
_BUCKET = 1 << 26  # gradients in one all-reduce: 256 MiB in float32


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


def tune_device(precision: Literal["bf16", "fp32"], device: torch.device) -> None:
    """Settings of this process that make a training on `device` faster.

    On a GPU with bf16, float32 products, which the losses have, run on its tensor cores (TF32); a run in fp32 keeps all
    digits. On a CPU, freed memory is kept.
    """
    if device.type == "cuda" and precision == "bf16":
        torch.set_float32_matmul_precision("high")
    if device.type == "cpu":
        keep_freed_memory(True)


def keep_freed_memory(keep: bool) -> None:
    """Whether glibc keeps what is freed, or gives large blocks back, as it does by itself once it has seen some.

    The next block would be cleared page by page, a fifth of a training's time.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keep else 2**26)
        mallopt(_M_MMAP_THRESHOLD, 2**30 if keep else 2**25)


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(rows)  # type: ignore[attr-defined]
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        rows: int = ctx.rows  # type: ignore[attr-defined]
        return total[rank() * rows : (rank() + 1) * rows]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """`rows` [n, dim] of every rank, [ranks * n, dim] in rank order; a row's gradient is summed over all ranks.

    With each rank's loss the mean over its own rows, the ranks' averaged gradients equal those of one process
    (`accelerator.gather` has no gradient).
    """
    if world_size() == 1:
        return rows
    gathered: torch.Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def global_row_indices(rows: torch.Tensor) -> torch.Tensor:
    """Indices of this rank's `rows` among those that `gather_rows` returns, int64 [n]."""
    return torch.arange(len(rows), device=rows.device) + rank() * len(rows)


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of `value` over the ranks, without a gradient."""
    mean = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(mean)
        mean = mean / world_size()
    return mean


def broadcast_weights(weights: Iterable[nn.Parameter]) -> None:
    """Copy rank 0's weights to all ranks, in place."""
    if world_size() > 1:
        for weight in weights:
            dist.broadcast(weight.detach(), 0)


@contextmanager
def averaged_gradients(weights: Sequence[nn.Parameter], bf16: bool = False) -> Iterator[None]:
    """While open, a backward pass adds the last gradients of a step; then they are averaged over the ranks, in place.

    A bucket of `weights` is sent, in float32 or `bf16`, as soon as that pass has reached all of its weights and the
    buckets before it are on their way: all ranks send in one order. Give the weights in the order of the pass, and
    last those that it does not reach. FSDP2 averages its own.
    """
    buckets = list(_buckets([w for w in weights if not isinstance(w, DTensor)])) if world_size() > 1 else []
    waiting, missing = deque(enumerate(buckets)), [len(bucket) for bucket in buckets]
    sent: list[tuple[dist.Work | None, torch.Tensor, list[torch.Tensor]]] = []

    def send() -> None:
        gradients = [weight.grad for weight in waiting.popleft()[1] if weight.grad is not None]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            flat = (flat.bfloat16() if bf16 else flat) / world_size()
            sent.append((dist.all_reduce(flat, async_op=True), flat, gradients))

    def reached(number: int, _weight: torch.Tensor) -> None:
        missing[number] -= 1
        while waiting and not missing[waiting[0][0]]:
            send()

    hooks = [
        weight.register_post_accumulate_grad_hook(partial(reached, number))  # type: ignore[no-untyped-call]
        for number, bucket in waiting
        for weight in bucket
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    while waiting:
        send()
    for work, flat, gradients in sent:
        if work is not None:
            work.wait()
        averaged = torch.split(flat, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [a.view_as(g) for a, g in zip(averaged, gradients, strict=True)])


def _buckets(weights: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for weight in weights:
        if bucket and sum(map(torch.numel, bucket)) + weight.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket


class AnyRank:
    """Combines flags of the ranks on the CPU, so that no GPU has to wait for them."""

    def __init__(self) -> None:
        """Collective."""
        self._group = dist.new_group(backend="gloo") if world_size() > 1 else None

    def __call__(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is set on any rank; collective."""
        if self._group is None:
            return list(flags)
        tensor = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return [bool(flag) for flag in tensor.tolist()]


def sharding_policy(precision: Literal["bf16", "fp32"], device: torch.device) -> MixedPrecisionPolicy:
    """Weights of a layer are gathered in `precision`, gradients averaged in float32; inputs stay as they are.

    Not on a CPU, where autocast leaves norms alone, and a norm takes no weights in bf16 for states in float32.
    """
    gathered = torch.bfloat16 if precision == "bf16" and device.type != "cpu" else None
    return MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)


def shard(
    student: nn.Module,
    layers: Iterable[nn.Module],
    decoder: nn.Module | None,
    device: torch.device,
    precision: Literal["bf16", "fp32"],
) -> None:
    """Shard the weights on `device` over all ranks, in place: each of the `layers` by itself, the rest of both modules.

    The weights become DTensors under their old names.
    """
    mesh, policy = init_device_mesh(device.type, (world_size(),)), sharding_policy(precision, device)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # The decoder uses the student's embeddings after its pass: they stay until the backward pass is done.
    fully_shard(student, mesh=mesh, reshard_after_forward=False)
    if decoder is not None:
        fully_shard(decoder, mesh=mesh)


def reshard(student: nn.Module) -> None:
    """Free the gathered weights that a forward pass left, so that the next one gathers the updated shards."""
    if isinstance(student, FSDPModule):
        student.reshard()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded; collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute_like(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`value` on the device of `weight`, and sharded like it where they have the same shape."""
    if isinstance(weight, DTensor) and value.shape == weight.shape:
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device, copy=True)
