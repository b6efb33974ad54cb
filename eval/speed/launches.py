"""Counts kernel launches and all_reduces by dispatch, which needs no GPU."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

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
