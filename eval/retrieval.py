"""Recall of retrieval by cosine: pure functions on feature matrices, as Chinese-CLIP's evaluation defines it."""

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (1, 5, 10)


def normalised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of `features` [rows, dim] at length 1, in float32; a zero or non-finite row raises ValueError."""
    lengths = np.linalg.norm(features.astype(np.float32), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError("features hold a row that is zero or not finite, so a cosine does not exist")
    unit: NDArray[np.float32] = (features / lengths).astype(np.float32)
    return unit


def ranks(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], pairs: NDArray[np.int64], chunk: int = 1024
) -> NDArray[np.int64]:
    """The place, from 0, of each query's first positive when the gallery is sorted by falling score.

    queries [queries, dim] and gallery [items, dim] are L2-normalised; pairs [pairs, 2] holds (query, item), any number
    for a query. The sort is stable: of equal scores, the item that is first in the file comes first. The place of one
    item is the count of items that score higher, plus that of equal ones before it, so nothing is sorted; at most
    `chunk` pairs are scored at a time. A query without a positive gets -1.
    """
    best = np.full(len(queries), np.iinfo(np.int64).max)
    order = np.argsort(pairs[:, 0], kind="stable")
    earlier = np.arange(len(gallery))
    for start in range(0, len(order), chunk):
        query, item = pairs[order[start : start + chunk]].T
        distinct, row = np.unique(query, return_inverse=True)
        scores = (queries[distinct] @ gallery.T)[row]
        own = scores[np.arange(len(query)), item][:, None]
        before = (scores > own) | ((scores == own) & (earlier < item[:, None]))
        np.minimum.at(best, query, before.sum(axis=1))
    return np.where(best == np.iinfo(np.int64).max, -1, best)


def hits(places: NDArray[np.int64]) -> NDArray[np.float64]:
    """[queries, 3]: 1 where the first positive is in the top 1, 5, 10; 0 where not, and where there is no positive."""
    within = (places[:, None] >= 0) & (places[:, None] < np.array(CUTOFFS))
    return within.astype(np.float64)


def recalls(places: NDArray[np.int64]) -> NDArray[np.float64]:
    """[3]: recall at 1, 5, 10 in percent, over the queries that have a positive; no such query raises ValueError."""
    asked = int((places >= 0).sum())
    if asked == 0:
        raise ValueError("no query has a positive")
    found: NDArray[np.float64] = hits(places).sum(axis=0)
    return 100 * found / asked
