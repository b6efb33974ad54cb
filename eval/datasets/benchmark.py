"""A retrieval benchmark: image ids, captions by language and a reader of pictures, from any published layout."""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cli import UserError
from data.sources.benchmark_files import BenchmarkRow, benchmark_files, read_benchmark_rows
from data.sources.benchmark_tables import EXPECTED
from eval.datasets.hub import is_hub_id, read_hub

ImageReader = Callable[[str], bytes]
"""From an image id to the bytes of its file; raises UserError naming the image where it is missing."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
IMAGE_FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "imgs")
PART_OF_SPEECH = re.compile(r"(\S[/_][A-Za-z]{1,3}\d?(\s|$)){2}")
_GIVE_FEATURES = "give features with --image-features"
SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class CaptionSet:
    """Captions of one language in file order; pairs [pairs, 2] holds (caption, image) for every positive pair."""

    texts: tuple[str, ...]
    pairs: NDArray[np.int64]


@dataclass(frozen=True)
class RetrievalBenchmark:
    """Images and captions in file order, which decides ties.

    `read_image` is None where texts stand for the images; `files` were read, and are hashed.
    """

    images: tuple[str, ...]
    captions: Mapping[str, CaptionSet]
    read_image: ImageReader | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class PublishedBenchmark:
    """A published benchmark: the language of its captions and its numbers of images and captions.

    A file of another size needs --title, and no published scores stand beside it.
    """

    name: str
    title: str
    language: str
    images: int
    captions: int | None


_PUBLISHED = (
    PublishedBenchmark("flickr30k-cn", "Flickr30K-CN", "zh", images=1000, captions=5000),
    PublishedBenchmark("flickr30k", "Flickr30K", "en", images=1000, captions=5000),  # the usual English split
    PublishedBenchmark("coco-cn", "COCO-CN", "zh", images=1000, captions=1053),  # English by --english
    PublishedBenchmark("xm3600", "XM3600", "zh", images=3600, captions=None),  # all captions of both languages
    PublishedBenchmark("muge", "MUGE", "zh", images=29806, captions=5008),  # published: text to image only
)
BENCHMARKS = {published.name: published for published in _PUBLISHED}
"""The benchmarks of `python -m eval.retrieval NAME`, by name."""


def assemble(
    rows: Iterable[BenchmarkRow], read_image: ImageReader, files: tuple[Path, ...], images: Iterable[str] = ()
) -> RetrievalBenchmark:
    """Number images in order of appearance, those of `images` first, and group the captions by language."""
    image_index = {image: position for position, image in enumerate(dict.fromkeys(images))}
    texts: dict[str, list[str]] = {}
    pairs: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        indices = [image_index.setdefault(image, len(image_index)) for image in row.images]
        if row.text is not None:
            language_texts = texts.setdefault(row.language, [])
            pairs.setdefault(row.language, []).extend((len(language_texts), index) for index in indices)
            language_texts.append(row.text)
    captions = {
        language: CaptionSet(tuple(texts[language]), np.array(pairs[language], dtype=np.int64).reshape(-1, 2))
        for language in texts
    }
    return RetrievalBenchmark(tuple(image_index), captions, read_image, files)


def read_benchmark(data: str, images: Path | None = None, language: str = "zh") -> RetrievalBenchmark:
    """Read the benchmark at `data`: a file, a folder, or the id of a data set on the Hub.

    `images` is the folder of pictures where it is not beside the captions, `language` that of captions whose layout
    does not tell it. Anything that is not a whole benchmark raises UserError.
    """
    path = Path(data)
    if not path.exists() and not is_hub_id(data):
        raise UserError(f"--data {data}: no such file or folder; {EXPECTED}, or the id of a data set on the Hub")
    file = benchmark_files(path)[0] if path.is_dir() else path
    if not file.is_file():
        table = read_hub(str(file) if file.is_dir() else data)
        _check_translations(table.rows)
        read_image = table.read_image or missing_images(f"{data} has no column of pictures", _GIVE_FEATURES)
        return _checked(assemble(table.rows, read_image, table.files, table.images), data)
    rows = [_scored_row(row, language) for row in read_benchmark_rows("", str(file))]
    _check_translations(rows)
    if file.name.endswith(CAPTION_SUFFIXES):
        return _checked(_assemble_chinese_clip(rows, file), data)
    return _checked(assemble(rows, folder_image_reader(file, images), (file,)), data)


def _scored_row(row: BenchmarkRow, language: str) -> BenchmarkRow:
    """`row` with its language; UserError where a caption is empty or has no image."""
    if not row.images:
        raise UserError(
            f'{row.where}: no image id; each row needs one, such as {{"image": id, "zh": [...], "en": [...]}}'
        )
    if row.text is not None and not row.text.strip():
        raise UserError(f"{row.where}: an empty caption; remove it")
    return replace(row, language=row.language or language)


def _check_translations(rows: list[BenchmarkRow]) -> None:
    """UserError where captions in zh_en are not, line by line, as many as those in zh that they translate."""
    counts = Counter((row.where, row.language) for row in rows if row.text is not None)
    if not any(language == "zh_en" for _, language in counts):
        return
    for where, _ in counts:
        if counts[where, "zh"] != counts[where, "zh_en"]:
            raise UserError(
                f"{where}: {counts[where, 'zh']} captions in zh and {counts[where, 'zh_en']} in zh_en; "
                "translate every Chinese caption, index by index, or leave zh_en out of the file"
            )


def _assemble_chinese_clip(rows: list[BenchmarkRow], texts: Path) -> RetrievalBenchmark:
    """`rows` of the file `texts` with the pictures beside it; without them the gallery is the images of the captions.

    The order of the pictures' file is the order of the gallery, and it decides ties, as in Chinese-CLIP.
    """
    pictures = pictures_file(texts)
    if not pictures.is_file():
        read_image = missing_images(f"no file {pictures}", f"put it there, or {_GIVE_FEATURES}")
        return assemble(rows, read_image, (texts,))
    offsets = image_offsets(pictures)
    for row in rows:
        unknown = [image for image in row.images if image not in offsets]
        if unknown:
            raise UserError(f"{row.where}: a caption of image {unknown[0]}, which is not in {pictures}")
    return assemble(rows, base64_image_reader(pictures, offsets), (texts, pictures), offsets)


def _checked(benchmark: RetrievalBenchmark, name: str) -> RetrievalBenchmark:
    """`benchmark` itself; UserError where it has no captions, half characters, or part-of-speech tags."""
    if not benchmark.captions:
        raise UserError(f"{name}: no captions; the file is empty")
    for language, captions in benchmark.captions.items():
        broken = next((text for text in captions.texts if SURROGATE.search(text)), None)
        if broken is not None:
            raise UserError(f"{name}: a caption is no text, it holds half a character: {broken[:40]!r}; write it again")
        tagged = sum(PART_OF_SPEECH.search(text) is not None for text in captions.texts[:1000])
        if tagged > 0.3 * min(len(captions.texts), 1000):
            example = next(text for text in captions.texts if PART_OF_SPEECH.search(text))
            raise UserError(
                f"{name}: its {language} captions carry part-of-speech tags ({example[:40]!r}), as CLIP_benchmark's "
                "Chinese Flickr30K does; use the human captions of Flickr30K-CN"
            )
    return benchmark


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("file:line", text without its line end) for each line that is not blank; bad UTF-8 raises UserError."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from error
            if line.strip():
                yield where, line


def folder_image_reader(table: Path, images: Path | None) -> ImageReader:
    """Pictures as files in `images`, or in a folder of a usual name beside `table`, or beside `table` itself.

    An id is a file name, with or without `.jpg`, with or without its folder.
    """
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: no such folder")
    siblings = [table.parent / name for name in IMAGE_FOLDERS if (table.parent / name).is_dir()]
    folder = images or next(iter(siblings), table.parent)

    def read_image(image: str) -> bytes:
        for name in (image, f"{image}.jpg", Path(image).name):
            if (folder / name).is_file():
                return (folder / name).read_bytes()
        raise UserError(
            f"image {image}: no such file in {folder}; name the folder of pictures with --images, "
            "or give ready features with --image-features"
        )

    return read_image


def missing_images(source: str, fix: str) -> ImageReader:
    """For a benchmark without pictures: UserError for whichever is read."""

    def read_image(image: str) -> bytes:
        raise UserError(f"image {image}: {source}; {fix}")

    return read_image


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
