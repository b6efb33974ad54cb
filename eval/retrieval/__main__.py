"""`python -m eval.retrieval BENCHMARK ...`: zero-shot image-text retrieval of a student beside its teacher."""

import dataclasses
import sys
from pathlib import PurePosixPath

import numpy as np
import opencc

from data.cli import UserError, command
from data.files import write_json
from eval.datasets.benchmark import BENCHMARKS, Benchmark, Captions, Published
from eval.datasets.readers import read
from eval.retrieval.options import Options, parse
from eval.retrieval.result import Result, result_json, table
from eval.retrieval.score import score


def run(published: Published, arguments: list[str] | None = None) -> Result:
    """Read the command line, score, print the table and write the JSON."""
    purpose = f"Zero-shot retrieval on {published.title}: a student beside its teacher."
    options = parse(f"eval.retrieval {published.name}", purpose, arguments)
    benchmark = read(options.data, options.images, published.language)
    if options.english is not None:
        benchmark = with_english(benchmark, read(options.english, options.images, language="en"), options.english)
    _refuse_another_size(published, benchmark, options)
    if options.traditional:
        benchmark = with_traditional(benchmark, options.data)
    result = score(options.title or published.title, benchmark, options)
    print(table(result))
    if options.out is not None:
        write_json(result_json(result), options.out)
    return result


def _refuse_another_size(published: Published, benchmark: Benchmark, options: Options) -> None:
    """UserError where images or captions are not as many as published, unless --title says that it is another set."""
    captions = benchmark.captions.get(published.language)
    found = _counted(len(benchmark.images), len(captions.texts) if captions and published.captions else None)
    wanted = _counted(published.images, published.captions)
    if found != wanted and not options.title:
        raise UserError(
            f"--data {options.data}: {found} in {published.language}, not the {wanted} of {published.title}'s test "
            "set; give the whole set, or where it is another one --title NAME"
        )


def _counted(images: int, captions: int | None) -> str:
    return f"{images} images" + (f" and {captions} captions" if captions is not None else "")


def with_traditional(benchmark: Benchmark, name: str) -> Benchmark:
    """`benchmark` with its Chinese captions a second time, in traditional characters (OpenCC's s2t)."""
    simplified = benchmark.captions.get("zh")
    if simplified is None:
        raise UserError(f"--traditional: {name} has no Chinese captions; leave it out")
    convert = opencc.OpenCC("s2t").convert
    written = Captions(tuple(map(convert, simplified.texts)), simplified.pairs)
    return dataclasses.replace(benchmark, captions={**benchmark.captions, "zh_hant": written})


def with_english(benchmark: Benchmark, english: Benchmark, name: str) -> Benchmark:
    """`benchmark` with the English captions of another file, for those of its images that the file knows.

    Images are the same where their file names are, whatever the folder and the ending.
    """
    number = {PurePosixPath(image).stem: position for position, image in enumerate(benchmark.images)}
    theirs = english.captions.get("en")
    if theirs is None:
        raise UserError(f"--english {name}: no English captions; it has {', '.join(english.captions)}")
    stems = [PurePosixPath(image).stem for image in english.images]
    pairs = [(caption, number[stems[image]]) for caption, image in theirs.pairs.tolist() if stems[image] in number]
    if not pairs:
        raise UserError(f"--english {name}: none of its images is in --data; its first is {english.images[0]!r}")
    place = {caption: position for position, caption in enumerate(sorted({caption for caption, _ in pairs}))}
    found = Captions(
        tuple(theirs.texts[caption] for caption in place),
        np.array([(place[caption], image) for caption, image in pairs], dtype=np.int64),
    )
    return dataclasses.replace(
        benchmark, captions={**benchmark.captions, "en": found}, files=(*benchmark.files, *english.files)
    )


def main() -> None:
    """Read the name of the benchmark, then the options of `eval.retrieval.options`."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        raise UserError(f"python -m eval.retrieval BENCHMARK ...: {name!r} is not one of {', '.join(BENCHMARKS)}")
    run(BENCHMARKS[name], arguments)


if __name__ == "__main__":
    command(main)
