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

from distill.text_tower import up_to_end
from distill.train.batch import Reading


def tower_flops(shape: CLIPTextConfig, lengths: torch.Tensor) -> float:
    """Of a forward pass over sentences of `lengths` tokens, [sentences]; a multiply and an add are two."""
    width, layers = shape.hidden_size, shape.num_hidden_layers
    a_token = 2 * (4 * width * width + 2 * width * shape.intermediate_size)
    attention = 2 * 2 * width * lengths.square().sum().item()
    pooled = 2 * width * (shape.projection_dim or 0) * len(lengths)
    return float(layers * (a_token * lengths.sum().item() + attention) + pooled)


def step_flops(shape: CLIPTextConfig, reading: Reading, teacher_end: int, student_end: int) -> float:
    """Of one step: the teacher forward, the student forward and backward; both towers are of `shape`."""

    def lengths(ids: torch.Tensor | None, end: int, slots: bool) -> torch.Tensor:
        if ids is None:
            return torch.zeros(0)
        return torch.full((len(ids),), float(ids.shape[1])) if slots else up_to_end(ids, end).sum(dim=1).float()

    cut = reading.teacher_english is not None  # then only every n-th pair has all slots
    whole = reading.full and not cut
    asked = tower_flops(shape, lengths(reading.teacher, teacher_end, whole))
    asked += tower_flops(shape, lengths(reading.teacher_english, teacher_end, True))
    learned = tower_flops(shape, lengths(reading.chinese, student_end, whole))
    learned += tower_flops(shape, lengths(reading.english, student_end, reading.full))
    return asked + 3 * learned


def tokens(reading: Reading, teacher_end: int, student_end: int) -> int:
    """Tokens of text that the towers read."""
    ends = ((reading.chinese, student_end), (reading.english, student_end), (reading.teacher, teacher_end))
    return sum(int(up_to_end(ids, end).sum()) for ids, end in ends)


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
    if (told := Path("/proc/cpuinfo")).is_file():
        lines = (
            line.split(":", 1)[1].strip() for line in told.read_text().splitlines() if line.startswith("model name")
        )
    return next(lines, platform.processor())


Shape = Literal["vit-b-32", "vit-l-14", "vit-h-14", "vit-bigg-14"]

_SIZES: dict[Shape, dict[str, Any]] = {
    "vit-b-32": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_act": "quick_gelu"},
    "vit-l-14": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
    "vit-h-14": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "gelu"},
    "vit-bigg-14": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"},
}


def random_teacher(shape: Shape, words: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a tower of `shape` with random weights of a fixed seed and the vocabulary of `words` to `folder`."""
    size = _SIZES[shape]
    width = size["hidden_size"]
    torch.manual_seed(0)
    config = CLIPTextConfig(
        **size, vocab_size=len(words), intermediate_size=4 * width, projection_dim=width, max_position_embeddings=77,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def seconds(work: Callable[[], object]) -> float:
    """What `work` takes, until the device is done with it."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    _finish()
    started = clock()
    work()
    _finish()
    return clock() - started


def peak_flops() -> float:
    """Arithmetic a second of a large bfloat16 matrix product here and now, the best of three."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    one, other = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    one @ other
    return 2 * size**3 / min(seconds(lambda: one @ other) for _ in range(3))


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
