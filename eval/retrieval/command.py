"""The command of a benchmark: the options that all share, and a run.

Torch and what needs it are imported late, so that a mistake on the command line shows at once.
"""

import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from data.cli import UserError, command_line
from data.files import check_safetensors, check_writable
from eval.datasets.benchmark import BENCHMARKS, CaptionSet, PublishedBenchmark, RetrievalBenchmark, read_benchmark
from eval.retrieval.result import (
    CHINESE_CLIP,
    OPENAI,
    PROTOCOLS,
    Options,
    Precision,
    Protocol,
    ProtocolName,
    RetrievalResult,
)

PUBLISHED_TITLES = tuple(published.title for published in BENCHMARKS.values())


def parse_options(module: str, description: str, arguments: list[str] | None = None) -> Options:
    """Options of `python -m MODULE`, a benchmark of pictures or of texts that stand for them.

    Raises ArgumentError or UserError.
    """
    parser = make_parser(module, description)
    parser.add_argument("--image-features", type=Path | None, help=".npz with `ids` and `features` of --clip's tower")
    parser.add_argument("--images", type=Path | None, help="folder of pictures, where it is not beside the captions")
    parser.add_argument("--english", type=str | None, help="English captions of the same images, where --data has none")
    parser.add_argument(
        "--traditional", type=bool, default=False, help="score the Chinese captions in traditional characters as well"
    )
    args = parser.parse_args(arguments)
    default_protocol = OPENAI if args.image_features else CHINESE_CLIP
    return common_options(args, default_protocol, command_line(module, arguments))


def make_parser(module: str, description: str) -> ArgumentParser:
    """A parser of the options that every benchmark has."""
    parser = ArgumentParser(prog=f"python -m {module}", description=description, exit_on_error=False)
    parser.add_argument("--student", type=str, required=True, help="folder or Hub id of the student, as exported")
    parser.add_argument(
        "--clip",
        type=str,
        required=True,
        help="folder or Hub id of the teacher's CLIPModel; its text tower is enough where no picture is read",
    )
    parser.add_argument("--data", type=str, required=True, help="benchmark: a file, a folder, or a Hub data set id")
    parser.add_argument("--translator", type=str | None, help="translation model zh to en: adds translate-then-teacher")
    parser.add_argument("--out", type=Path | None, help="result JSON to write")
    parser.add_argument("--title", type=str | None, help="name of the set in --data, where it is another one")
    parser.add_argument(
        "--protocol",
        type=ProtocolName | None,
        help="chinese-clip (squashed pictures, 52 tokens, lower case) or openai (cropped, 77 tokens); "
        "by default chinese-clip, and openai with --image-features and in eval.translation",
    )
    parser.add_argument("--max-length", type=int | None, help="tokens of a caption; by default the protocol's")
    parser.add_argument("--examples", type=int, default=12, help="captions to keep with the images that they found")
    add_device_options(parser)
    return parser


def add_device_options(parser: ArgumentParser) -> None:
    """`--precision` and `--device`."""
    parser.add_argument("--precision", type=Precision, default="fp32", help="of the towers; the protocol is fp32")
    parser.add_argument("--device", type=str | None, help="cpu, cuda, cuda:1 ...; by default the accelerator, if any")


def common_options(args: Namespace, default_protocol: Protocol, command: str) -> Options:
    """Every field of `Options` that `args` has, checked; `default_protocol` holds where the command line names none."""
    protocol = PROTOCOLS[args.protocol] if args.protocol else default_protocol
    if args.max_length is not None and args.max_length < 3:
        raise UserError(f"--max-length {args.max_length}: start, end and one token between need 3")
    if args.title is not None and args.title.strip() in {"", *PUBLISHED_TITLES}:
        raise UserError(f"--title {args.title!r}: name another set than a published one, or leave it out")
    if args.out is not None:
        check_writable(args.out)
    given = {each.name: args[each.name] for each in dataclasses.fields(Options) if each.name in args}
    given |= {"protocol": protocol, "max_length": args.max_length or protocol.max_length}
    return Options(**given | {"examples": max(0, args.examples), "device_name": args.device, "command": command})


def check_models(options: Options) -> None:
    """Raise UserError where a model that `options` names cannot be one, before anything is imported to load it."""
    for option, source in (
        ("--student", options.student), ("--clip", options.clip), ("--translator", options.translator)
    ):  # fmt: skip
        if source is not None and not source.endswith(".onnx"):
            check_safetensors(source, option)


def run_benchmark(
    published: PublishedBenchmark, arguments: list[str] | None = None, module: str | None = None
) -> RetrievalResult:
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
