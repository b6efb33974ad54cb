"""Intervals of recall by bootstrap over images: ranks are computed once, images are drawn again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.retrieval import hits

SEED = 20260101
DRAWS = 2000


@dataclass(frozen=True)
class ImageTable:
    """What each image adds to the six recalls: hits [images, 6] and queries asked [images, 6], text to image first."""

    hits: NDArray[np.float64]
    asked: NDArray[np.float64]


def image_table(
    text_places: NDArray[np.int64], image_places: NDArray[np.int64], pairs: NDArray[np.int64]
) -> ImageTable:
    """Sum the queries by image; a text with several images counts with the first of them.

    text_places [texts] and image_places [images] are places of the first positive; pairs [pairs, 2] is (text, image).
    """
    owner = np.full(len(text_places), len(image_places))
    np.minimum.at(owner, pairs[:, 0], pairs[:, 1])
    texts_asked = text_places >= 0
    found = np.zeros((len(image_places), 6))
    asked = np.zeros((len(image_places), 6))
    np.add.at(found[:, :3], owner[texts_asked], hits(text_places)[texts_asked])
    np.add.at(asked[:, :3], owner[texts_asked], 1.0)
    found[:, 3:] = hits(image_places)
    asked[:, 3:] = (image_places >= 0)[:, None]
    return ImageTable(found, asked)


def replicates(table: ImageTable, seed: int = SEED, draws: int = DRAWS, chunk: int = 250) -> NDArray[np.float64]:
    """[draws, 7]: the six recalls and their mean, in percent, on images drawn with replacement.

    Tables of equally many images meet the same draws under the same seed, so a difference or ratio of two results is
    paired. The gallery stays whole: what is sampled is which images are asked about.
    """
    generator = np.random.default_rng(seed)
    images = len(table.hits)
    parts = []
    for start in range(0, draws, chunk):
        weights = generator.multinomial(images, np.full(images, 1 / images), size=min(chunk, draws - start))
        with np.errstate(invalid="ignore", divide="ignore"):
            six = (weights @ table.hits) / (weights @ table.asked) * 100
        parts.append(np.concatenate([six, six.mean(axis=1, keepdims=True)], axis=1))
    return np.concatenate(parts)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the draws; a draw that asked nothing (not a number) is left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
