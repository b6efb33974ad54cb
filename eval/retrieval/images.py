"""Pictures through a CLIP image tower: pixels by protocol, features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm
from transformers import CLIPConfig, CLIPVisionModelWithProjection, PretrainedConfig

from data.cli import UserError, one_line
from data.files import check_safetensors
from distill.loading import OPENAI_MEAN, OPENAI_STD, channel_statistics, load_pretrained_model
from eval.datasets.benchmark import ImageReader
from eval.datasets.decoding import decode_image
from eval.metrics import l2_normalise

Transform = Literal["squash", "crop"]


@dataclass(frozen=True)
class ImagePreprocessing:
    """Pixels that an image tower expects: `size` a side, mean and standard deviation of each channel in 0..1."""

    size: int
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD


@dataclass(frozen=True)
class ImageTower:
    """A CLIP image tower with its projection and its preprocessing."""

    model: CLIPVisionModelWithProjection
    preprocessing: ImagePreprocessing


def load_image_tower(source: str, option: str, dtype: torch.dtype, device: torch.device) -> ImageTower:
    """The image tower of the whole CLIPModel at `source`; UserError where there is none."""
    check_safetensors(source, option)
    try:
        config, _ = PretrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {source}: no readable config.json ({one_line(error)})") from error
    if config.get("model_type") != CLIPConfig.model_type:
        raise UserError(f"{option} {source}: has no image tower; give a whole CLIPModel or --image-features")
    model = load_pretrained_model(CLIPVisionModelWithProjection, source, option, "CLIP image tower", dtype=dtype)
    preprocessing = ImagePreprocessing(int(model.config.image_size), *channel_statistics(source))
    return ImageTower(model.to(device).eval(), preprocessing)


def image_features(
    tower: ImageTower, images: Sequence[str], read_image: ImageReader, transform: Transform, batch_size: int = 64
) -> NDArray[np.float32]:
    """[images, dim] float32, L2-normalised, in the order of `images`; a bad picture raises UserError naming it."""
    device, dtype = tower.model.device, tower.model.dtype
    features = []
    for start in tqdm(range(0, len(images), batch_size), desc="pictures", unit="batch", leave=False, disable=None):
        batch = images[start : start + batch_size]
        pixels = np.stack(
            [pixel_values(decode_image(read_image(name), name), transform, tower.preprocessing) for name in batch]
        )
        with torch.inference_mode():
            values = torch.from_numpy(pixels).to(device=device, dtype=dtype)
            features.append(tower.model(pixel_values=values).image_embeds.float().cpu().numpy())
    return l2_normalise(np.concatenate(features))


def resize_squash(image: Image.Image, size: int) -> Image.Image:
    """Chinese-CLIP's resize: bicubic to size x size, aspect not kept."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def resize_crop(image: Image.Image, size: int) -> Image.Image:
    """OpenAI's resize: the shorter side bicubic to `size`, then the centre."""
    width, height = image.size
    short = min(width, height)
    wide, high = int(size * width / short), int(size * height / short)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def pixel_values(image: Image.Image, transform: Transform, preprocessing: ImagePreprocessing) -> NDArray[np.float32]:
    """[3, size, size] float32, normalised by channel."""
    resized = (resize_squash if transform == "squash" else resize_crop)(image, preprocessing.size)
    scaled = np.asarray(resized, dtype=np.float32) / np.float32(255)
    normal = (scaled - np.array(preprocessing.mean, np.float32)) / np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)
