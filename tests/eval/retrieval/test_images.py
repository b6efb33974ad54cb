import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers import CLIPImageProcessorPil

from data.cli import UserError
from eval.datasets.decoding import decode_image
from eval.retrieval.images import ImagePreprocessing, pixel_values, resize_crop, resize_squash


def encoded(image: Image.Image, form: str, **settings: Any) -> bytes:  # noqa: ANN401  options of PIL's writers
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_squash_keeps_the_whole_picture_and_crop_its_middle() -> None:
    stripes = Image.new("RGB", (90, 30), "red")
    ImageDraw.Draw(stripes).rectangle((30, 0, 59, 29), fill="blue")
    thirds = np.asarray(resize_squash(stripes, 30))[15, [2, 15, 27]]
    assert thirds.tolist() == [[255, 0, 0], [0, 0, 255], [255, 0, 0]]
    assert np.asarray(resize_crop(stripes, 30)).reshape(-1, 3).tolist() == [[0, 0, 255]] * 900


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (32, 32), (20, 16), (97, 33)])
def test_crop_equals_the_processor_of_transformers(size: tuple[int, int]) -> None:
    image = photograph(*size)
    processor: Any = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    ours = pixel_values(image, "crop", ImagePreprocessing(32))
    if (max(size) * 32 // min(size) - 32) % 2 == 0:  # an odd margin is halved otherwise there than in OpenAI's code
        assert np.abs(ours - theirs).max() < 1e-5
    assert ours.shape == theirs.shape == (3, 32, 32)


def test_pixel_values_by_hand() -> None:
    grey = Image.new("RGB", (8, 8), (51, 51, 51))
    values = pixel_values(grey, "squash", ImagePreprocessing(4, mean=(0.0, 0.2, 0.1), std=(1.0, 0.5, 0.1)))
    assert values.dtype == np.float32
    assert values[:, 0, 0].tolist() == pytest.approx([0.2, 0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_usual_modes_become_rgb(mode: str) -> None:
    assert decode_image(encoded(photograph(9, 8).convert(mode), "PNG"), "x").mode == "RGB"


def png16() -> bytes:
    """One pixel of 16-bit RGB, which PIL reads but does not write."""
    content = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    for part in (b"IHDR" + head, b"IDAT" + zlib.compress(bytes(7)), b"IEND"):
        content += struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    return content


def test_pictures_that_are_refused() -> None:
    whole = encoded(photograph(64, 64), "JPEG")
    frames = [photograph(8, 8), photograph(9, 9).resize((8, 8))]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    cases = {
        "cut short": (whole[: len(whole) // 2], "image x: cannot be decoded .*cut short"),
        "no picture": (b"<html>", "image x: not a picture of a known format$"),
        "empty": (b"", "image x: not a picture of a known format$"),
        "cmyk": (encoded(photograph(8, 8).convert("CMYK"), "JPEG"), "mode CMYK .four inks.; save it as 8-bit RGB"),
        "16 bits": (encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), "mode I;16 .16 or 32 bits"),
        "16-bit colour": (png16(), "image x: 16 bits a channel; save it as 8-bit RGB"),
        "thin": (encoded(Image.new("1", (1, 101)), "PNG"), "image x: 1 x 101, no photograph"),
        "animated": (animated, r"animated \(2 frames\)"),
        "animated, cut": (animated[:294], "image x: cannot be decoded"),  # an IndexError within PIL
    }
    for content, message in cases.values():
        with pytest.raises(UserError, match=message):
            decode_image(content, "x")


def test_a_bomb_is_refused_unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("1", (300, 300)), "PNG")
    for limit in (80_000, 10):  # PIL warns over one limit and raises over twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match="image x: too many pixels"):
            decode_image(content, "x")
