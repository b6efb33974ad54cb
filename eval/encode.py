"""Features of captions and pictures: float32, L2-normalised, in the order of the input."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from distill.tight import tight_batches
from eval.benchmark import Picture
from eval.images import Transform, opened, pixel_values
from eval.protocol import Protocol, prepared
from eval.retrieval import normalised
from eval.towers import ImageTower, TextTower


@dataclass(frozen=True)
class TextFeatures:
    """features [captions, dim]; `cut` of them were longer than `max_length` tokens and lost their ends."""

    features: NDArray[np.float32]
    cut: int
    max_length: int


def token_ids(tower: TextTower, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
    """Ids of each text, at most `max_length` with the end-of-text kept, and how many were cut."""
    whole: list[list[int]] = tower.tokenizer(list(texts), verbose=False).input_ids
    end = int(tower.tokenizer.eos_token_id)
    cut = sum(len(ids) > max_length for ids in whole)
    return [ids if len(ids) <= max_length else [*ids[: max_length - 1], end] for ids in whole], cut


def text_features(
    tower: TextTower, texts: Sequence[str], protocol: Protocol, max_length: int | None = None, batch_size: int = 128
) -> TextFeatures:
    """Encode captions in tight batches."""
    limit = min(max_length or protocol.max_length, tower.slots)
    ids, cut = token_ids(tower, [prepared(text, protocol) for text in texts], limit)
    batches = tight_batches(ids, int(tower.tokenizer.eos_token_id), batch_size)
    features = np.zeros((len(ids), tower.width), dtype=np.float32)
    for batch in tqdm(batches, desc="captions", unit="batch", leave=False, disable=None):
        features[batch.rows] = tower.embed(batch.ids)
    return TextFeatures(normalised(features), cut, limit)


def image_features(
    tower: ImageTower, images: Sequence[str], picture: Picture, transform: Transform, batch_size: int = 64
) -> NDArray[np.float32]:
    """[images, dim]: one picture after the other through the image tower; a bad picture raises UserError naming it."""
    device, dtype = tower.model.device, tower.model.dtype
    parts = []
    for start in tqdm(range(0, len(images), batch_size), desc="pictures", unit="batch", leave=False, disable=None):
        batch = images[start : start + batch_size]
        pixels = np.stack([pixel_values(opened(picture(name), name), transform, tower.pixels) for name in batch])
        with torch.inference_mode():
            values = torch.from_numpy(pixels).to(device=device, dtype=dtype)
            parts.append(tower.model(pixel_values=values).image_embeds.float().cpu().numpy())
    return normalised(np.concatenate(parts))
