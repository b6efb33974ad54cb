"""`python -m eval.retrieval BENCHMARK ...`: zero-shot image-text retrieval of a student beside its teacher."""

import dataclasses
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from data.cli import UserError, run_cli
from eval.datasets.benchmark import BENCHMARKS, CaptionSet, PublishedBenchmark, RetrievalBenchmark, read_benchmark
from eval.retrieval.options import Options, check_models, parse_options

if TYPE_CHECKING:
    from eval.retrieval.result import RetrievalResult


def run_benchmark(
    published: PublishedBenchmark, arguments: list[str] | None = None, module: str | None = None
) -> "RetrievalResult":
    """Read the command line, score, print the table and write the JSON."""
    purpose = f"Zero-shot retrieval on {published.title}: a student beside its teacher."
    options = parse_options(module or f"eval.retrieval {published.name}", purpose, arguments)
    benchmark = read_benchmark(options.data, options.images, published.language)
    if options.english is not None:
        benchmark = with_english(
            benchmark, read_benchmark(options.english, options.images, language="en"), options.english
        )
    _check_published_size(published, benchmark, options)
    if options.traditional:
        benchmark = with_traditional(benchmark, options.data)
    check_models(options)
    from eval.retrieval.score import score_benchmark  # seconds of imports, which no mistake above should wait for

    return score_benchmark(options.title or published.title, benchmark, options).publish(options.out)


def _check_published_size(published: PublishedBenchmark, benchmark: RetrievalBenchmark, options: Options) -> None:
    """UserError where the numbers of images and captions are not the published ones and --title names no other set."""
    captions = benchmark.captions.get(published.language)
    actual = _size_text(len(benchmark.images), len(captions.texts) if captions and published.captions else None)
    expected = _size_text(published.images, published.captions)
    if actual != expected and not options.title:
        raise UserError(
            f"--data {options.data}: {actual} in {published.language}, not the {expected} of {published.title}'s test "
            "set; give the whole set, or where it is another one --title NAME"
        )


def _size_text(images: int, captions: int | None) -> str:
    return f"{images} images" + (f" and {captions} captions" if captions is not None else "")


def with_traditional(benchmark: RetrievalBenchmark, name: str) -> RetrievalBenchmark:
    """`benchmark` with a copy of its Chinese captions in traditional characters (OpenCC's s2t)."""
    simplified = benchmark.captions.get("zh")
    if simplified is None:
        raise UserError(f"--traditional: {name} has no Chinese captions; leave it out")
    import opencc

    convert = opencc.OpenCC("s2t").convert
    traditional = CaptionSet(tuple(map(convert, simplified.texts)), simplified.pairs)
    return dataclasses.replace(benchmark, captions={**benchmark.captions, "zh_hant": traditional})


def with_english(benchmark: RetrievalBenchmark, english: RetrievalBenchmark, name: str) -> RetrievalBenchmark:
    """`benchmark` with the English captions of another file, for the images that are in both.

    Images are matched by file name without folder and suffix.
    """
    image_index = {PurePosixPath(image).stem: position for position, image in enumerate(benchmark.images)}
    english_captions = english.captions.get("en")
    if english_captions is None:
        raise UserError(f"--english {name}: no English captions; it has {', '.join(english.captions)}")
    stems = [PurePosixPath(image).stem for image in english.images]
    pairs = [
        (caption, image_index[stems[image]])
        for caption, image in english_captions.pairs.tolist()
        if stems[image] in image_index
    ]
    if not pairs:
        raise UserError(f"--english {name}: none of its images is in --data; its first is {english.images[0]!r}")
    caption_index = {caption: position for position, caption in enumerate(sorted({caption for caption, _ in pairs}))}
    kept_captions = CaptionSet(
        tuple(english_captions.texts[caption] for caption in caption_index),
        np.array([(caption_index[caption], image) for caption, image in pairs], dtype=np.int64),
    )
    return dataclasses.replace(
        benchmark, captions={**benchmark.captions, "en": kept_captions}, files=(*benchmark.files, *english.files)
    )


def main() -> None:
    """Score the benchmark of the first argument; the others are the options of `eval.retrieval.options`."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(f"usage: python -m eval.retrieval BENCHMARK ...\nBENCHMARK is one of {', '.join(BENCHMARKS)}")
        print("python -m eval.retrieval BENCHMARK --help lists the options")
        return
    if name not in BENCHMARKS:
        raise UserError(f"python -m eval.retrieval BENCHMARK ...: {name!r} is not one of {', '.join(BENCHMARKS)}")
    run_benchmark(BENCHMARKS[name], arguments)


if __name__ == "__main__":
    run_cli(main)
