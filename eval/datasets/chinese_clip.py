"""Pictures of Chinese-CLIP and MUGE: `*_imgs.tsv` in base64, beside `*_texts.jsonl` or `*_queries.jsonl`."""

import base64
import binascii
from collections.abc import Callable
from pathlib import Path

from data.cli import UserError

CAPTION_SUFFIXES = ("_texts.jsonl", "_queries.jsonl")


def pictures_file(texts: Path) -> Path:
    """The file of pictures that belongs to a file of captions."""
    suffix = next(suffix for suffix in CAPTION_SUFFIXES if texts.name.endswith(suffix))
    return texts.with_name(texts.name.removesuffix(suffix) + "_imgs.tsv")


def image_offsets(pictures: Path) -> dict[str, int]:
    """Byte offset of each picture's line, so that no more than one picture is in memory."""
    offsets: dict[str, int] = {}
    with pictures.open("rb") as file:
        position = 0
        for number, line in enumerate(file, 1):
            image, tab, _ = line.partition(b"\t")
            if not tab:
                raise UserError(f"{pictures}:{number}: no tab; each line needs id<TAB>picture in base64")
            offsets[image.decode("utf-8", errors="replace")] = position
            position += len(line)
    return offsets


def base64_image_reader(pictures: Path, offsets: dict[str, int]) -> Callable[[str], bytes]:
    """From an image id to the bytes of its picture; UserError for one that is not base64."""

    def read_image(image: str) -> bytes:
        with pictures.open("rb") as file:
            file.seek(offsets[image])
            code = file.readline().partition(b"\t")[2].strip()
        try:
            # Both alphabets occur: the authors' files are in the plain one, their own reader takes the other.
            return base64.b64decode(code.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
        except binascii.Error as error:
            raise UserError(f"{pictures}: image {image} is not base64 ({error}); is the file cut short?") from error

    return read_image
