"""Our recall against two others: Chinese-CLIP's evaluation, written anew from its description, and CLIP_benchmark's."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eval.metrics import l2_normalise, positive_ranks, recalls


def chinese_clip_recalls(
    queries: NDArray[np.float32], items: NDArray[np.float32], positives: list[set[int]], batch: int
) -> list[float]:
    """The published procedure, as two programs do it: lists of the ten best by batches, then hits by list.

    Scores are gathered batch by batch over the gallery in file order; the whole list is sorted by falling score with a
    stable sort; a query is right at k if any of the first k is one of its positives.
    """
    predictions = []
    for query in torch.from_numpy(queries):
        scored: list[tuple[int, float]] = []
        for start in range(0, len(items), batch):
            found = (query.unsqueeze(0) @ torch.from_numpy(items[start : start + batch]).T).squeeze(0).tolist()
            scored.extend(enumerate(found, start))
        predictions.append([item for item, _ in sorted(scored, key=lambda pair: pair[1], reverse=True)[:10]])
    asked = [(prediction, right) for prediction, right in zip(predictions, positives, strict=True) if right]
    return [100 * sum(any(p in right for p in found[:k]) for found, right in asked) / len(asked) for k in (1, 5, 10)]


Features = NDArray[np.float32]


def features(seed: int, images: int, captions: int) -> tuple[Features, Features, NDArray[np.int64]]:
    """Captions near their images, with exact copies among both so that ties occur as they do in real files."""
    generator = np.random.default_rng(seed)
    pictures = generator.normal(size=(images, 32))
    owner = np.sort(generator.integers(0, images, captions))
    texts = pictures[owner] + generator.normal(size=(captions, 32)) * 2.5
    texts[::7] = texts[3]
    pictures[::11] = pictures[5]
    pairs = np.stack([np.arange(captions), owner], axis=1)
    return l2_normalise(texts.astype(np.float32)), l2_normalise(pictures.astype(np.float32)), pairs


def on_a_grid(rows: Features) -> Features:
    """Multiples of 1/32, whose products float32 adds exactly: programs that add in another order must agree."""
    return np.round(rows * 32).astype(np.float32) / np.float32(32)


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_chinese_clips_procedure_to_the_last_digit(seed: int) -> None:
    texts, pictures, pairs = features(seed, images=60, captions=180)
    images_of: list[set[int]] = [{int(image) for text, image in pairs if text == n} for n in range(len(texts))]
    texts_of: list[set[int]] = [{int(text) for text, image in pairs if image == n} for n in range(len(pictures))]
    texts, pictures = on_a_grid(texts), on_a_grid(pictures)
    assert recalls(positive_ranks(texts, pictures, pairs)).tolist() == chinese_clip_recalls(
        texts, pictures, images_of, 32
    )
    backward = recalls(positive_ranks(pictures, texts, pairs[:, ::-1]))
    assert backward.tolist() == chinese_clip_recalls(pictures, texts, texts_of, 32)
    assert 0 < backward[0] < 100


class Ready:
    """A "model" of CLIP_benchmark that hands through features that are already made."""

    def encode_image(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def encode_text(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_clip_benchmarks_own_metric(seed: int) -> None:
    """Its package itself; it knows nothing of ties, so here there are none."""
    metric = pytest.importorskip(
        "clip_benchmark.metrics.zeroshot_retrieval", reason="needs clip-benchmark: make install"
    )
    generator = np.random.default_rng(seed)
    pictures = l2_normalise(generator.normal(size=(100, 16)).astype(np.float32))
    texts = l2_normalise((np.repeat(pictures, 5, axis=0) + generator.normal(size=(500, 16)) * 0.6).astype(np.float32))
    pairs = np.stack([np.arange(500), np.repeat(np.arange(100), 5)], axis=1)

    def batches() -> Iterator[tuple[torch.Tensor, list[list[int]]]]:
        for start in range(0, 100, 25):
            numbers = range(start, start + 25)
            yield torch.from_numpy(pictures[numbers]), [list(range(5 * n, 5 * n + 5)) for n in numbers]

    def tokenizer(rows: list[int]) -> torch.Tensor:
        return torch.from_numpy(texts[rows])

    theirs = metric.evaluate(Ready(), batches(), tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    ours = [*recalls(positive_ranks(texts, pictures, pairs)), *recalls(positive_ranks(pictures, texts, pairs[:, ::-1]))]
    keys = [f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)]
    assert ours == pytest.approx([100 * theirs[key] for key in keys], abs=1e-4)
    assert 5 < ours[0] < 95
