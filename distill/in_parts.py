"""A step whose activations do not fit at once: the same gradients, the activations of one part at a time.

The losses look at the whole batch (contrastive, affinity, means over all tokens), so they are computed once on all
states, and only the towers run in parts: without gradients to get the states, then again to carry each part's share of
the states' gradient on to the weights (Gao et al. 2021, gradient caching). One forward pass more, and nothing is
approximated.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from distill.losses import Terms
from distill.reading import Reading, Targets
from distill.states import States
from distill.task import Task, total
from distill.teacher import Teacher

Autocast = Callable[[], AbstractContextManager[None]]


def targets_in_parts(teacher: Teacher, parts: Sequence[Reading]) -> Targets:
    """The teacher's states of all parts."""
    every = [teacher.targets(part) for part in parts]
    return Targets(_joined([part.pairs for part in every]), _joined([part.english for part in every]))


def backward_in_parts(
    task: Task, reading: Reading, targets: Targets, done: float, count: int, autocast: Autocast
) -> Terms:
    """Terms of the step, whose gradients are added to the weights of `task`; `count` parts."""
    parts = reading.parts(count)
    with torch.no_grad(), autocast():
        read = [(task.student(part.chinese), task.student(part.english)) for part in parts]
    chinese, english = (_leaf(_joined([each[side] for each in read])) for side in (0, 1))
    with autocast():
        terms = task.terms(reading, chinese, english, targets, done)
    total(terms).backward()  # type: ignore[no-untyped-call]
    for index, part in enumerate(parts):
        for ids, states in ((part.chinese, chinese), (part.english, english)):
            with autocast():
                again = task.student(ids)
            rows = slice(index * len(ids), (index + 1) * len(ids))
            wanted = ((again.tokens, states.tokens), (again.pooled, states.pooled))
            held = [(one, whole.grad[rows]) for one, whole in wanted if whole.grad is not None and one.requires_grad]
            torch.autograd.backward([one for one, _ in held], [gradient for _, gradient in held])
    return terms


def average_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Average over the ranks, in place; what DDP does within a backward pass that belongs to its own forward pass."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    for weight in weights:
        if weight.grad is not None and not isinstance(weight, DTensor):  # FSDP2 averages with every backward pass
            dist.all_reduce(weight.grad)
            weight.grad /= dist.get_world_size()


def _joined(parts: Sequence[States]) -> States:
    return States(*(torch.cat([getattr(part, name) for part in parts]) for name in ("tokens", "pooled", "is_text")))


def _leaf(states: States) -> States:
    return States(states.tokens.requires_grad_(), states.pooled.requires_grad_(), states.is_text)
