"""Retrieval recalls, BLEU and chrF, with bootstrap intervals: pure functions of features, ranks and texts.

Recall is that of Chinese-CLIP's evaluation: cosine in float32, a stable order, a query is a hit if any of its positives
is among the first k. Ranks are computed once; a bootstrap draws images again with replacement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF, CHRFScore

CUTOFFS = (1, 5, 10)
DRAWS = 2000
BLEU_DRAWS = 1000
BOOTSTRAP_SEED = 20260101
BLEU_TOKENIZERS: dict[str, str] = {"zh": "zh", "en": "13a"}

Values = NDArray[np.float64]


def l2_normalise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of `features` [rows, dim] at length 1, in float32; a zero or non-finite row raises ValueError."""
    lengths = np.linalg.norm(features.astype(np.float32), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError("features hold a row that is zero or not finite, so a cosine does not exist")
    unit: NDArray[np.float32] = (features / lengths).astype(np.float32)
    return unit


def positive_ranks(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], pairs: NDArray[np.int64], chunk: int = 1024
) -> NDArray[np.int64]:
    """Rank [queries], from 0, of each query's first positive in the gallery sorted by falling cosine; -1 without one.

    queries [queries, dim] and gallery [items, dim] are L2-normalised; pairs [pairs, 2] holds (query, item), any number
    per query. Ties are in file order. The rank of an item is the number of items with a higher score plus that of
    equal ones before it, so nothing is sorted; at most `chunk` pairs are scored at a time.
    """
    best = np.full(len(queries), np.iinfo(np.int64).max)
    order = np.argsort(pairs[:, 0], kind="stable")
    gallery_index = np.arange(len(gallery))
    for start in range(0, len(order), chunk):
        query, item = pairs[order[start : start + chunk]].T
        distinct, row = np.unique(query, return_inverse=True)
        scores = (queries[distinct] @ gallery.T)[row]
        positive_scores = scores[np.arange(len(query)), item][:, None]
        ranked_above = (scores > positive_scores) | ((scores == positive_scores) & (gallery_index < item[:, None]))
        np.minimum.at(best, query, ranked_above.sum(axis=1))
    return np.where(best == np.iinfo(np.int64).max, -1, best)


def hits(ranks: NDArray[np.int64]) -> Values:
    """[queries, 3]: 1 where the first positive is in the top 1, 5, 10; 0 elsewhere, and for queries without one."""
    within = (ranks[:, None] >= 0) & (ranks[:, None] < np.array(CUTOFFS))
    return within.astype(np.float64)


def recalls(ranks: NDArray[np.int64]) -> Values:
    """[3]: recall at 1, 5, 10 in percent over the queries that have a positive; ValueError where none has."""
    num_queries = int((ranks >= 0).sum())
    if num_queries == 0:
        raise ValueError("no query has a positive")
    hit_counts: Values = hits(ranks).sum(axis=0)
    return 100 * hit_counts / num_queries


@dataclass(frozen=True)
class ImageTable:
    """Hits [images, 6] and queries [images, 6] of each image; text to image at 1, 5, 10, then image to text."""

    hits: Values
    num_queries: Values


def image_table(text_ranks: NDArray[np.int64], image_ranks: NDArray[np.int64], pairs: NDArray[np.int64]) -> ImageTable:
    """Sum the queries by image; a text with several images counts with the first of them.

    text_ranks [texts] and image_ranks [images] are ranks of the first positive; pairs [pairs, 2] is (text, image).
    """
    owner = np.full(len(text_ranks), len(image_ranks))
    np.minimum.at(owner, pairs[:, 0], pairs[:, 1])
    has_positive = text_ranks >= 0
    hit_sums = np.zeros((len(image_ranks), 6))
    num_queries = np.zeros((len(image_ranks), 6))
    np.add.at(hit_sums[:, :3], owner[has_positive], hits(text_ranks)[has_positive])
    np.add.at(num_queries[:, :3], owner[has_positive], 1.0)
    hit_sums[:, 3:] = hits(image_ranks)
    num_queries[:, 3:] = (image_ranks >= 0)[:, None]
    return ImageTable(hit_sums, num_queries)


def bootstrap_recalls(table: ImageTable, seed: int = BOOTSTRAP_SEED, draws: int = DRAWS, chunk: int = 250) -> Values:
    """[draws, 7]: the six recalls and their mean, in percent, on images drawn with replacement.

    Tables of equally many images get the same draws under the same seed, so a difference or ratio of two results is
    paired. The gallery stays whole: only the queries are resampled. A draw without a query is NaN.
    """
    generator = np.random.default_rng(seed)
    images = len(table.hits)
    chunks = []
    for start in range(0, draws, chunk):
        weights = generator.multinomial(images, np.full(images, 1 / images), size=min(chunk, draws - start))
        with np.errstate(invalid="ignore", divide="ignore"):
            recall_values = (weights @ table.hits) / (weights @ table.num_queries) * 100
        chunks.append(np.concatenate([recall_values, recall_values.mean(axis=1, keepdims=True)], axis=1))
    return np.concatenate(chunks)


def percentile_interval(values: Values) -> tuple[float, float]:
    """The middle 95 % of values [draws]; NaN is left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: Values, draws: int = DRAWS) -> tuple[float, float]:
    """95 % interval of the mean of values [prompts], by bootstrap over prompts."""
    rows = np.random.default_rng(BOOTSTRAP_SEED).integers(len(values), size=(draws, len(values)))
    return percentile_interval(values[rows].mean(1))


class _Bleu(BLEU):
    """BLEU with Python floats as drawn scores: sacreBLEU computes no interval from float32 scores and a plain 0."""

    def _compute_score_from_stats(self, stats: list[int]) -> BLEUScore:
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


class _ChrF(CHRF):
    """As `_Bleu`."""

    def _compute_score_from_stats(self, stats: list[int]) -> CHRFScore:
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


def bleu_and_chrf(
    hypotheses: Sequence[str], references: Sequence[str], language: Literal["zh", "en"]
) -> dict[str, Any]:
    """Both scores with intervals by bootstrap over sentences; lower-cased, as the student's tokenizers are."""
    scores: dict[str, Any] = {"sentences": len(hypotheses)}
    metrics = {
        "bleu": _Bleu(tokenize=BLEU_TOKENIZERS[language], lowercase=True),
        "chrf": _ChrF(lowercase=True),
    }
    for name, metric in metrics.items():
        score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=BLEU_DRAWS)
        scores[name] = round(score.score, 4)
        scores[f"{name}_ci95"] = [round(float(score._mean + side * score._ci), 4) for side in (-1, 1)]
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores
