"""Texts in batches of like length, padded no further than the longest.

No mask is needed: the tower is causal and pools at the first end-of-text, so it does not see what follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """`rows` [batch] say which texts these are; `ids` [batch, length] are filled up with the end-of-text."""

    rows: list[int]
    ids: NDArray[np.int64]


def tight_batches(ids: Sequence[Sequence[int]], end: int, batch_size: int) -> list[Batch]:
    """All texts, shortest first."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    batches = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = len(ids[rows[-1]])
        batches.append(Batch(rows, np.array([[*ids[row], *[end] * (longest - len(ids[row]))] for row in rows])))
    return batches
