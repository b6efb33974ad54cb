"""Pictures of Chinese-CLIP and MUGE: `*_imgs.tsv` in base64, beside `*_texts.jsonl` or `*_queries.jsonl`."""

import base64
import binascii
from pathlib import Path

from data.cli import UserError
from data.sources.benchmark_rows import BenchmarkRow
from eval.datasets.benchmark import ImageReader, RetrievalBenchmark, assemble, missing_images

CAPTION_SUFFIXES = ("_texts.jsonl", "_queries.jsonl")


def assemble_chinese_clip(rows: list[BenchmarkRow], texts: Path) -> RetrievalBenchmark:
    """`rows` of the file `texts` with the pictures beside it; without them the gallery is the images of the captions.

    The order of the pictures' file is the order of the gallery, and it decides ties, as in Chinese-CLIP.
    """
    suffix = next(suffix for suffix in CAPTION_SUFFIXES if texts.name.endswith(suffix))
    pictures = texts.with_name(texts.name.removesuffix(suffix) + "_imgs.tsv")
    if not pictures.is_file():
        no_file = missing_images(f"no file {pictures}", "put it there, or give features with --image-features")
        return assemble(rows, no_file, (texts,))
    offsets = _offsets(pictures)
    for row in rows:
        unknown = [image for image in row.images if image not in offsets]
        if unknown:
            raise UserError(f"{row.where}: a caption of image {unknown[0]}, which is not in {pictures}")
    return assemble(rows, _image_reader(pictures, offsets), (texts, pictures), offsets)


def _offsets(pictures: Path) -> dict[str, int]:
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


def _image_reader(pictures: Path, offsets: dict[str, int]) -> ImageReader:
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
