"""Clock, arithmetic and kernel launches of a training step, and the machine that they are measured on."""

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import commit
from distill.distributed import Precision, resolve_precision
from distill.loading import resolve_device, torch_dtype
from distill.text_tower import text_mask
from distill.train.batch import TrainBatch


def tower_flops(shape: CLIPTextConfig, lengths: torch.Tensor, pooled_only: bool = False) -> float:
    """FLOPs of the matrix products of a forward pass over sentences of `lengths` tokens, [sentences].

    A multiply and an add are two. Embeddings, norms, losses and the optimizer count nothing. With `pooled_only` the
    last layer computes keys and values of all tokens, and the rest of one a sentence.
    """
    width, tokens = shape.hidden_size, lengths.sum().item()
    keys_and_values = 4 * width * width
    others = 4 * width * width + 4 * width * shape.intermediate_size
    layer = (keys_and_values + others) * tokens + 4 * width * lengths.square().sum().item()
    last = keys_and_values * tokens + others * len(lengths) + 4 * width * tokens if pooled_only else layer
    return float((shape.num_hidden_layers - 1) * layer + last + 2 * width * (shape.projection_dim or 0) * len(lengths))


def step_flops(shape: CLIPTextConfig, batch: TrainBatch, teacher_eos_id: int, student_eos_id: int) -> float:
    """FLOPs of one step: teacher forward, student forward and backward (twice its forward); both of `shape`.

    Padding counts nothing, except where a loss compares all positions; nor does an activation that is recomputed.
    """

    def lengths(ids: torch.Tensor | None, eos_id: int, with_padding: bool) -> torch.Tensor:
        if ids is None:
            return torch.zeros(0)
        return torch.full((len(ids),), float(ids.shape[1])) if with_padding else text_mask(ids, eos_id).sum(1).float()

    trimmed = batch.teacher_en_ids is not None  # then only every n-th pair is at max length
    all_padded = batch.padded_to_max and not trimmed
    pairs, en_ids, pooled = batch.teacher_ids, batch.teacher_en_ids, batch.pooled_zh
    if pooled:
        en_ids = pairs[batch.english_rows] if en_ids is None else en_ids
        pairs = pairs[batch.other_rows]
    teacher_flops = tower_flops(shape, lengths(pairs, teacher_eos_id, all_padded and not pooled), pooled)
    teacher_flops += tower_flops(shape, lengths(en_ids, teacher_eos_id, batch.padded_to_max))
    student_flops = tower_flops(shape, lengths(batch.student_zh_ids, student_eos_id, all_padded and not pooled), pooled)
    student_flops += tower_flops(shape, lengths(batch.student_en_ids, student_eos_id, batch.padded_to_max))
    return teacher_flops + 3 * student_flops


def count_tokens(batch: TrainBatch, teacher_eos_id: int, student_eos_id: int) -> int:
    """Tokens of text that the towers read, padding not counted."""
    student_ids = (batch.student_zh_ids, batch.student_en_ids)
    tokens = sum(int(text_mask(ids, student_eos_id).sum()) for ids in student_ids)
    return tokens + int(text_mask(batch.teacher_ids, teacher_eos_id).sum())


def use_device(name: str | None) -> torch.device:
    """Train and measure on the device `name`, or where accelerate would; UserError where torch cannot use it."""
    if name:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(resolve_device(name))
    device: torch.device = PartialState().device
    return device


def machine() -> dict[str, Any]:
    """Device, threads, load, torch and commit of a measurement."""
    device = PartialState().device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds of `work`: on a GPU by the wall clock until the device is done, on a CPU the time of the process.

    The time of the process (user and system, all threads) leaves out other work on the machine; with one thread
    (OMP_NUM_THREADS=1) it is what an idle machine would take.
    """
    device = PartialState().device
    if device.type == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.accelerator.synchronize(device)
    started = time.perf_counter()
    work()
    torch.accelerator.synchronize(device)
    return time.perf_counter() - started


def peak_flops(precision: Precision) -> float:
    """FLOPs a second of a large square matrix product in `precision` here and now, the best of three."""
    device = PartialState().device
    size = 2048 if device.type == "cpu" else 8192
    dtype = torch_dtype(resolve_precision(precision, device))
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    one @ other
    return 2 * size**3 / min(timed(lambda: one @ other) for _ in range(3))


_NO_LAUNCH = frozenset({"detach", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty",
                        "new_empty_strided", "record_stream", "resize_", "set_"})  # fmt: skip
_SCALARS = 4096


class LaunchCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is half typed
    """Counts, while it is entered, the operators that launch a kernel on a GPU, and the all_reduces among processes.

    Views, allocations and reads of metadata launch nothing; every other operator counts one, a fused one too. On a CPU
    the towers use plain attention, whose operators are more than the fused kernel of a GPU: an upper bound. An
    all_reduce of at most 4,096 values counts as scalar as well: it costs its latency alone.
    """

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: Counter[str] = Counter()
        self.all_reduces = 0
        self.scalar_all_reduces = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Count `func` and run it."""
        name = func.overloadpacket.__name__
        if func.namespace == "c10d":
            if name.startswith("allreduce"):
                self.all_reduces += 1
                self.scalar_all_reduces += sum(tensor.numel() for tensor in args[0]) <= _SCALARS
        elif not func.is_view and name not in _NO_LAUNCH:
            self.kernels[name] += 1
        return func(*args, **(kwargs or {}))


Shape = Literal["vit-b-32", "vit-l-14", "vit-h-14", "vit-bigg-14"]
_SIZES: dict[Shape, dict[str, Any]] = {
    "vit-b-32": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_act": "quick_gelu"},
    "vit-l-14": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
    "vit-h-14": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "gelu"},
    "vit-bigg-14": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"},
}


def random_teacher(shape: Shape, tokenizer: PreTrainedTokenizerFast, work: Path) -> str:
    """Write a text tower of a published size with random weights of a fixed seed, and `tokenizer`; their folder."""
    width = _SIZES[shape]["hidden_size"]
    torch.manual_seed(0)
    config = CLIPTextConfig(
        **_SIZES[shape], vocab_size=len(tokenizer), intermediate_size=4 * width, projection_dim=width,
        max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    for part in (CLIPTextModelWithProjection(config), tokenizer):
        part.save_pretrained(work / shape)
    return str(work / shape)
