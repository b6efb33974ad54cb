"""How much arithmetic a step asks for: the matrix products of the towers, and nothing else.

Padding is no work, except where a loss compares all slots. Embeddings, norms, losses and the optimizer count nothing;
a backward pass counts twice its forward pass, and no activation is counted again where it is recomputed.

Where a measurement was made.

Text towers in their published sizes with random weights: for benchmarks and tests where no real ones are at hand.

Time, and what this machine can do at most.

On a GPU the time on the wall; on a CPU that of the process itself, all its threads together, because what else the
machine does would be measured otherwise. With one thread (OMP_NUM_THREADS=1) it is what an idle machine would take.
"""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.text_tower import text_mask
from distill.train.batch import TrainBatch


def tower_flops(shape: CLIPTextConfig, lengths: torch.Tensor) -> float:
    """Of a forward pass over sentences of `lengths` tokens, [sentences]; a multiply and an add are two."""
    width, layers = shape.hidden_size, shape.num_hidden_layers
    per_token = 2 * (4 * width * width + 2 * width * shape.intermediate_size)
    attention = 2 * 2 * width * lengths.square().sum().item()
    pooled = 2 * width * (shape.projection_dim or 0) * len(lengths)
    return float(layers * (per_token * lengths.sum().item() + attention) + pooled)


def step_flops(shape: CLIPTextConfig, batch: TrainBatch, teacher_eos_id: int, student_eos_id: int) -> float:
    """Of one step: the teacher forward, the student forward and backward; both towers are of `shape`."""

    def lengths(ids: torch.Tensor | None, end: int, slots: bool) -> torch.Tensor:
        if ids is None:
            return torch.zeros(0)
        return torch.full((len(ids),), float(ids.shape[1])) if slots else text_mask(ids, end).sum(dim=1).float()

    cut = batch.teacher_en_ids is not None  # then only every n-th pair has all slots
    whole = batch.padded_to_max and not cut
    teacher_flops = tower_flops(shape, lengths(batch.teacher_ids, teacher_eos_id, whole))
    teacher_flops += tower_flops(shape, lengths(batch.teacher_en_ids, teacher_eos_id, True))
    student_flops = tower_flops(shape, lengths(batch.student_zh_ids, student_eos_id, whole))
    student_flops += tower_flops(shape, lengths(batch.student_en_ids, student_eos_id, batch.padded_to_max))
    return teacher_flops + 3 * student_flops


def count_tokens(batch: TrainBatch, teacher_end: int, student_end: int) -> int:
    """Tokens of text that the towers read."""
    ends = ((batch.student_zh_ids, student_end), (batch.student_en_ids, student_end), (batch.teacher_ids, teacher_end))
    return sum(int(text_mask(ids, end).sum()) for ids, end in ends)


def machine() -> dict[str, Any]:
    """Where this was measured, and on which commit."""
    folder = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=folder, check=False)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "device": name, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__, "commit": commit.stdout.strip() or "unknown",
    }  # fmt: skip


def _processor() -> str:
    lines: Iterator[str] = iter(())
    if (cpuinfo := Path("/proc/cpuinfo")).is_file():
        lines = (
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        )
    return next(lines, platform.processor())


Shape = Literal["vit-b-32", "vit-l-14", "vit-h-14", "vit-bigg-14"]

_SIZES: dict[Shape, dict[str, Any]] = {
    "vit-b-32": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_act": "quick_gelu"},
    "vit-l-14": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
    "vit-h-14": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "gelu"},
    "vit-bigg-14": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"},
}


def random_teacher(shape: Shape, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a tower of `shape` with random weights of a fixed seed and the vocabulary of `words` to `folder`."""
    size = _SIZES[shape]
    width = size["hidden_size"]
    torch.manual_seed(0)
    config = CLIPTextConfig(
        **size,
        vocab_size=len(tokenizer),
        intermediate_size=4 * width,
        projection_dim=width,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def timed(work: Callable[[], object]) -> float:
    """What `work` takes, until the device is done with it."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    _synchronize()
    started = clock()
    work()
    _synchronize()
    return clock() - started


def peak_flops() -> float:
    """Arithmetic a second of a large bfloat16 matrix product here and now, the best of three."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    one, other = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    one @ other
    return 2 * size**3 / min(timed(lambda: one @ other) for _ in range(3))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
