"""Time, and what this machine can do at most.

On a GPU the time on the wall; on a CPU that of the process itself, all its threads together, because what else the
machine does would be measured otherwise. With one thread (OMP_NUM_THREADS=1) it is what an idle machine would take.
"""

import time
from collections.abc import Callable

import torch


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
