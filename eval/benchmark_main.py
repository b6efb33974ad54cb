"""What `python -m eval.BENCHMARK` does, for every retrieval benchmark."""

import dataclasses
import sys

import numpy as np

from data.command import UserError
from eval.benchmark import Benchmark, Captions
from eval.datasets.read import read
from eval.options import parse
from eval.result import Result, result_json, write_json
from eval.score import score
from eval.table import table


def run(module: str, title: str, size: tuple[int, int] | None, arguments: list[str] | None = None) -> Result:
    """Read the command line, score, print the table and write the JSON.

    `size` is how many images and Chinese captions the published test set has: another count is said aloud, because the
    score may then not stand beside published ones.
    """
    options = parse(module, f"Zero-shot retrieval on {title}: a student beside its teacher.", arguments)
    benchmark = read(options.data, options.images)
    if options.english is not None:
        benchmark = with_english(benchmark, read(options.english, options.images, language="en"), options.english)
    found = (len(benchmark.images), len(benchmark.captions["zh"].texts) if "zh" in benchmark.captions else 0)
    if size is not None and found != size:
        print(
            f"{options.data}: {found[0]} images and {found[1]} Chinese captions, not the {size[0]} and {size[1]} of "
            f"{title}'s test set: do not set its scores beside published ones",
            file=sys.stderr,
        )
    result = score(title, benchmark, options)
    print(table(result))
    if options.out is not None:
        write_json(result_json(result), options.out)
    return result


def with_english(benchmark: Benchmark, english: Benchmark, name: str) -> Benchmark:
    """`benchmark` with the English captions of another file, for those of its images that the file knows."""
    number = {image.removesuffix(".jpg"): position for position, image in enumerate(benchmark.images)}
    theirs = english.captions.get("en")
    if theirs is None:
        raise UserError(f"--english {name}: no English captions; it has {', '.join(english.captions)}")
    pairs = [
        (caption, number[english.images[image].removesuffix(".jpg")])
        for caption, image in theirs.pairs.tolist()
        if english.images[image].removesuffix(".jpg") in number
    ]
    if not pairs:
        raise UserError(f"--english {name}: none of its images is in --data; its first is {english.images[0]!r}")
    kept = sorted({caption for caption, _ in pairs})
    place = {caption: position for position, caption in enumerate(kept)}
    found = Captions(
        tuple(theirs.texts[caption] for caption in kept),
        np.array([(place[caption], image) for caption, image in pairs], dtype=np.int64),
    )
    return dataclasses.replace(
        benchmark, captions={**benchmark.captions, "en": found}, files=(*benchmark.files, *english.files)
    )
