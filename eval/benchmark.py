"""A retrieval benchmark in memory: image ids, captions by language, and where the pictures' bytes are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = Callable[[str], bytes]
"""From an image id to the bytes of its file; raises UserError naming the image where it is missing."""


def no_picture(image: str) -> bytes:
    """The `picture` of a benchmark whose gallery is made of texts."""
    raise AssertionError(f"{image} is no picture")


@dataclass(frozen=True)
class Captions:
    """Captions of one language in file order; pairs [pairs, 2] holds (caption, image) for every right pair."""

    texts: tuple[str, ...]
    pairs: NDArray[np.int64]


@dataclass(frozen=True)
class Benchmark:
    """Images and captions in file order, which decides ties; `files` are the files that were read, for their hashes."""

    images: tuple[str, ...]
    captions: Mapping[str, Captions]
    picture: Picture
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Caption:
    """One row of a benchmark file: its language, its text, and the ids of the images that it describes."""

    language: str
    text: str
    images: tuple[str, ...]


def assemble(
    rows: Iterable[Caption], picture: Picture, files: tuple[Path, ...], images: Iterable[str] = ()
) -> Benchmark:
    """Number images in order of first sight, those of `images` first, and sort the captions by language."""
    number = {image: position for position, image in enumerate(dict.fromkeys(images))}
    texts: dict[str, list[str]] = {}
    pairs: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        mine = texts.setdefault(row.language, [])
        for image in row.images:
            pairs.setdefault(row.language, []).append((len(mine), number.setdefault(image, len(number))))
        mine.append(row.text)
    captions = {
        language: Captions(tuple(texts[language]), np.array(pairs[language], dtype=np.int64).reshape(-1, 2))
        for language in texts
    }
    return Benchmark(tuple(number), captions, picture, files)
