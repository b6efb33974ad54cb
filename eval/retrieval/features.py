"""Features of captions and pictures: float32, L2-normalised, in the order of the input.

Image features that were made elsewhere: an .npz with `ids` [images] and `features` [images, dim].
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.cli import UserError, one_line
from distill.text_tower import length_sorted_batches
from eval.datasets.benchmark import ImageReader
from eval.metrics import l2_normalise
from eval.retrieval.models import ImageTower, TextTower
from eval.retrieval.preprocess import Protocol, Transform, decode_image, normalise_caption, pixel_values


@dataclass(frozen=True)
class TextFeatures:
    """features [captions, dim]; `cut` of them were longer than `max_length` tokens and lost their ends."""

    features: NDArray[np.float32]
    cut: int
    max_length: int


def token_ids(tower: TextTower, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
    """Ids of each text, at most `max_length` with the end-of-text kept, and how many were cut."""
    full_ids: list[list[int]] = tower.tokenizer(list(texts), verbose=False).input_ids
    end = int(tower.tokenizer.eos_token_id)
    cut = sum(len(ids) > max_length for ids in full_ids)
    return [ids if len(ids) <= max_length else [*ids[: max_length - 1], end] for ids in full_ids], cut


def text_features(
    tower: TextTower, texts: Sequence[str], protocol: Protocol, max_length: int | None = None, batch_size: int = 128
) -> TextFeatures:
    """Encode captions in tight batches."""
    limit = min(max_length or protocol.max_length, tower.max_length)
    ids, cut = token_ids(tower, [normalise_caption(text, protocol) for text in texts], limit)
    batches = length_sorted_batches(ids, int(tower.tokenizer.eos_token_id), batch_size)
    features = np.zeros((len(ids), tower.feature_dim), dtype=np.float32)
    for batch in tqdm(batches, desc="captions", unit="batch", leave=False, disable=None):
        features[batch.rows] = tower.embed(batch.ids)
    return TextFeatures(l2_normalise(features), cut, limit)


def image_features(
    tower: ImageTower, images: Sequence[str], read_image: ImageReader, transform: Transform, batch_size: int = 64
) -> NDArray[np.float32]:
    """[images, dim]: one picture after the other through the image tower; a bad picture raises UserError naming it."""
    device, dtype = tower.model.device, tower.model.dtype
    parts = []
    for start in tqdm(range(0, len(images), batch_size), desc="pictures", unit="batch", leave=False, disable=None):
        batch = images[start : start + batch_size]
        pixels = np.stack(
            [pixel_values(decode_image(read_image(name), name), transform, tower.preprocessing) for name in batch]
        )
        with torch.inference_mode():
            values = torch.from_numpy(pixels).to(device=device, dtype=dtype)
            parts.append(tower.model(pixel_values=values).image_embeds.float().cpu().numpy())
    return l2_normalise(np.concatenate(parts))


def load_features(path: Path, images: Sequence[str], width: int) -> NDArray[np.float32]:
    """[images, dim]: the features of `images`, in their order, L2-normalised; `width` is that of the text tower."""
    ids, features = _load_arrays(path)
    if features.shape[1] != width:
        raise UserError(
            f"{path}: features of width {features.shape[1]}, but the text tower of --clip has width {width}; "
            "they are not of one model"
        )
    row_of_image = {name: number for number, name in enumerate(ids)}
    if len(row_of_image) != len(ids):
        raise UserError(f"{path}: ids holds {len(ids) - len(row_of_image)} names twice")
    missing = [name for name in images if name not in row_of_image]
    if missing:
        raise UserError(
            f"{path}: no features of {len(missing)} of {len(images)} images, {missing[0]!r} first (its own first is "
            f"{ids[0]!r})"
        )
    try:
        return l2_normalise(features[[row_of_image[name] for name in images]].astype(np.float32))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _load_arrays(path: Path) -> tuple[list[str], NDArray[np.floating]]:
    if not path.is_file():
        raise UserError(f"--image-features {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            ids, features = archive["ids"], archive["features"]
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; it needs the arrays ids and features") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        problem = f"not a readable .npz ({one_line(error)})"
        raise UserError(f"{path}: {problem}; save it with numpy.savez and no objects") from error
    if features.ndim != 2 or ids.ndim != 1 or len(ids) != len(features) or len(ids) == 0:
        raise UserError(f"{path}: ids {ids.shape} and features {features.shape} must be [images] and [images, dim]")
    return [str(name) for name in ids], features
