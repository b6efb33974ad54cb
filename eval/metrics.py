"""Intervals of recall by bootstrap over images: ranks are computed once, images are drawn again.

Recall of retrieval by cosine: pure functions on feature matrices, as Chinese-CLIP's evaluation defines it.

How near translations come to the references: sacreBLEU and chrF, with intervals and signatures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF, CHRFScore

from distill.losses.translation import Language

CUTOFFS = (1, 5, 10)


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
    """The place, from 0, of each query's first positive when the gallery is sorted by falling score.

    queries [queries, dim] and gallery [items, dim] are L2-normalised; pairs [pairs, 2] holds (query, item), any number
    for a query. The sort is stable: of equal scores, the item that is first in the file comes first. The place of one
    item is the count of items that score higher, plus that of equal ones before it, so nothing is sorted; at most
    `chunk` pairs are scored at a time. A query without a positive gets -1.
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


def hits(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """[queries, 3]: 1 where the first positive is in the top 1, 5, 10; 0 where not, and where there is no positive."""
    within = (ranks[:, None] >= 0) & (ranks[:, None] < np.array(CUTOFFS))
    return within.astype(np.float64)


def recalls(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """[3]: recall at 1, 5, 10 in percent, over the queries that have a positive; no such query raises ValueError."""
    num_queries = int((ranks >= 0).sum())
    if num_queries == 0:
        raise ValueError("no query has a positive")
    hit_counts: NDArray[np.float64] = hits(ranks).sum(axis=0)
    return 100 * hit_counts / num_queries


BOOTSTRAP_SEED = 20260101
DRAWS = 2000


@dataclass(frozen=True)
class ImageTable:
    """What each image adds to the six recalls: hits [images, 6] and queries asked [images, 6], text to image first."""

    hits: NDArray[np.float64]
    num_queries: NDArray[np.float64]


def image_table(text_ranks: NDArray[np.int64], image_ranks: NDArray[np.int64], pairs: NDArray[np.int64]) -> ImageTable:
    """Sum the queries by image; a text with several images counts with the first of them.

    text_places [texts] and image_places [images] are places of the first positive; pairs [pairs, 2] is (text, image).
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


def bootstrap_recalls(
    table: ImageTable, seed: int = BOOTSTRAP_SEED, draws: int = DRAWS, chunk: int = 250
) -> NDArray[np.float64]:
    """[draws, 7]: the six recalls and their mean, in percent, on images drawn with replacement.

    Tables of equally many images meet the same draws under the same seed, so a difference or ratio of two results is
    paired. The gallery stays whole: what is sampled is which images are asked about.
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


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the draws; a draw that asked nothing (not a number) is left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


TOKENIZERS: dict[Language, str] = {"zh": "zh", "en": "13a"}
BLEU_DRAWS = 1000


class _Bleu(BLEU):
    """BLEU whose every drawn score is a Python float: sacreBLEU makes no interval of float32 scores and a plain 0."""

    def _compute_score_from_stats(self, stats: list[int]) -> BLEUScore:
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


class _ChrF(CHRF):
    """The same of chrF."""

    def _compute_score_from_stats(self, stats: list[int]) -> CHRFScore:
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


def bleu_and_chrf(hypotheses: Sequence[str], references: Sequence[str], language: Language) -> dict[str, Any]:
    """Both scores of `said`, lower-cased as the student's tokenizers are, by bootstrap over sentences."""
    scores: dict[str, Any] = {"sentences": len(hypotheses)}
    for name, metric in (
        ("bleu", _Bleu(tokenize=TOKENIZERS[language], lowercase=True)),
        ("chrf", _ChrF(lowercase=True)),
    ):
        metric_score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=BLEU_DRAWS)
        scores[name] = round(metric_score.score, 4)
        scores[f"{name}_ci95"] = [round(float(metric_score._mean + side * metric_score._ci), 4) for side in (-1, 1)]
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores


Values = NDArray[np.float64]


def mean_interval(values: Values, draws: int = 2000) -> tuple[float, float]:
    """95 % of the mean of values [prompts], by bootstrap over prompts."""
    lots = np.random.default_rng(20260101).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[lots].mean(1), [2.5, 97.5])
    return float(low), float(high)
