"""From the bytes of a picture to the pixels of a CLIP image tower, with PIL alone.

The two protocols of zero-shot retrieval: Chinese-CLIP's and OpenAI's.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data.cli import UserError, one_line

Transform = Literal["squash", "crop"]
PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
MAX_ASPECT_RATIO = 100  # times the shorter one
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImagePreprocessing:
    """What an image tower expects: `size` pixels a side, and the mean and deviation of each channel in 0..1."""

    size: int
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD


def decode_image(content: bytes, name: str) -> Image.Image:
    """The picture as 8-bit RGB; one that is cut short, CMYK, 16-bit, animated or a bomb raises UserError naming it.

    Those are refused, not mended: a guess at their colours or frame would change a score without a trace.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
            if getattr(image, "n_frames", 1) > 1:
                raise UserError(f"image {name}: animated ({image.n_frames} frames); save the frame that is meant")  # type: ignore[attr-defined]
            if image.mode not in PLAIN_MODES:
                raise UserError(
                    f"image {name}: mode {image.mode} ({_mode_description(image.mode)}); save it as 8-bit RGB"
                )
            if ";16" in str(getattr(image, "tile", "")):  # the decoder's raw mode: PIL would halve it without a word
                raise UserError(f"image {name}: 16 bits a channel; save it as 8-bit RGB")
            if max(image.size) > MAX_ASPECT_RATIO * min(image.size):  # OpenAI's resize would make a bomb of it
                raise UserError(f"image {name}: {image.width} x {image.height}, no photograph; cut out what is meant")
            return image.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"image {name}: too many pixels to be a photograph ({error})") from error
    except UnidentifiedImageError as error:  # its message holds an address of memory
        raise UserError(f"image {name}: not a picture of a known format") from error
    except UserError:
        raise
    except Exception as error:  # PIL's decoders raise whatever they stumble over in broken bytes
        raise UserError(f"image {name}: cannot be decoded ({one_line(error)}); is the file cut short?") from error


def _mode_description(mode: str) -> str:
    if mode == "CMYK":
        return "four inks"
    return "16 or 32 bits a channel" if mode[0] in "IF" else "an unusual colour space"


def resize_squash(image: Image.Image, size: int) -> Image.Image:
    """Chinese-CLIP's resize: bicubic to size x size, the aspect not kept."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def resize_crop(image: Image.Image, size: int) -> Image.Image:
    """OpenAI's resize: the shorter side bicubic to `size`, then the middle."""
    width, height = image.size
    short = min(width, height)
    wide, high = int(size * width / short), int(size * height / short)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def pixel_values(image: Image.Image, transform: Transform, preprocessing: ImagePreprocessing) -> NDArray[np.float32]:
    """[3, size, size] float32, normalised by channel."""
    fitted = (resize_squash if transform == "squash" else resize_crop)(image, preprocessing.size)
    scaled = np.asarray(fitted, dtype=np.float32) / np.float32(255)
    normal = (scaled - np.array(preprocessing.mean, np.float32)) / np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)


ProtocolName = Literal["chinese-clip", "openai"]


@dataclass(frozen=True)
class Protocol:
    """How pictures and captions are made ready; `max_length` is in tokens, start and end of text included."""

    name: ProtocolName
    transform: Literal["squash", "crop"]
    max_length: int
    lower_case: bool
    straight_quotes: bool


CHINESE_CLIP = Protocol("chinese-clip", transform="squash", max_length=52, lower_case=True, straight_quotes=True)
OPENAI = Protocol("openai", transform="crop", max_length=77, lower_case=False, straight_quotes=False)
PROTOCOLS: dict[ProtocolName, Protocol] = {protocol.name: protocol for protocol in (CHINESE_CLIP, OPENAI)}


def normalise_caption(text: str, protocol: Protocol) -> str:
    """A caption as the protocol hands it to the tokenizer."""
    if protocol.straight_quotes:
        text = text.replace("“", '"').replace("”", '"')
    return text.lower() if protocol.lower_case else text
