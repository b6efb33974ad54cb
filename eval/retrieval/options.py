"""Command-line options that every benchmark shares, and the two protocols of zero-shot retrieval.

Torch is imported where a device is asked for, so that a mistake on the command line shows at once.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from data.cli import UserError, command_line
from data.files import check_writable
from eval.datasets.benchmark import BENCHMARKS

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]
ProtocolName = Literal["chinese-clip", "openai"]
PUBLISHED_TITLES = tuple(published.title for published in BENCHMARKS.values())


@dataclass(frozen=True)
class Protocol:
    """How pictures and captions are prepared; `max_length` is in tokens, start and end of text included."""

    name: ProtocolName
    transform: Literal["squash", "crop"]
    max_length: int
    lower_case: bool
    straight_quotes: bool


CHINESE_CLIP = Protocol("chinese-clip", transform="squash", max_length=52, lower_case=True, straight_quotes=True)
OPENAI = Protocol("openai", transform="crop", max_length=77, lower_case=False, straight_quotes=False)
PROTOCOLS: dict[ProtocolName, Protocol] = {protocol.name: protocol for protocol in (CHINESE_CLIP, OPENAI)}


def normalise_caption(text: str, protocol: Protocol) -> str:
    """A caption as the protocol passes it to the tokenizer."""
    if protocol.straight_quotes:
        text = text.replace("“", '"').replace("”", '"')
    return text.lower() if protocol.lower_case else text


@dataclass(frozen=True)
class Options:
    """Models, data and protocol of a benchmark run; `--help` explains each."""

    student: str
    clip: str
    data: str
    translator: str | None
    out: Path | None
    protocol: Protocol
    max_length: int
    title: str | None
    examples: int
    precision: Precision
    device_name: str | None
    command: str
    image_features: Path | None = None
    images: Path | None = None
    english: str | None = None
    traditional: bool = False

    @property
    def dtype(self) -> "torch.dtype":
        """Of the towers; features are always float32."""
        return torch_dtype(self.precision)

    @property
    def device(self) -> "torch.device":
        """Of `device_name`; UserError where torch cannot use it."""
        return resolve_device(self.device_name)


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
    return dataclasses.replace(
        common_options(args, default_protocol, command_line(module, arguments)),
        image_features=args.image_features,
        images=args.images,
        english=args.english,
        traditional=args.traditional,
    )


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


def torch_dtype(precision: Precision) -> "torch.dtype":
    """The type of a tower's weights at `precision`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def resolve_device(name: str | None) -> "torch.device":
    """The device `name`, by default the accelerator or else the CPU; UserError where torch cannot use it."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        device = torch.device(name) if name else accelerator or torch.device("cpu")
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # also NotImplementedError, of `meta`
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def common_options(args: Namespace, default_protocol: Protocol, command: str) -> Options:
    """The checked options of `make_parser`; `default_protocol` holds where the command line names none."""
    protocol = PROTOCOLS[args.protocol] if args.protocol else default_protocol
    if args.max_length is not None and args.max_length < 3:
        raise UserError(f"--max-length {args.max_length}: start, end and one token between need 3")
    if args.title is not None and args.title.strip() in {"", *PUBLISHED_TITLES}:
        raise UserError(f"--title {args.title!r}: name another set than a published one, or leave it out")
    if args.out is not None:
        check_writable(args.out)
    return Options(
        student=args.student,
        clip=args.clip,
        data=args.data,
        translator=args.translator,
        out=args.out,
        protocol=protocol,
        max_length=args.max_length or protocol.max_length,
        title=args.title,
        examples=max(0, args.examples),
        precision=args.precision,
        device_name=args.device,
        command=command,
    )


def check_models(options: Options) -> None:
    """Raise UserError where a model that `options` names cannot be one, before anything is imported to load it."""
    for option, source in (
        ("--student", options.student), ("--clip", options.clip), ("--translator", options.translator)
    ):  # fmt: skip
        if source is not None and not source.endswith(".onnx"):
            check_safetensors(source, option)


def check_safetensors(source: str, option: str) -> None:
    """Raise UserError where `source` is a folder without safetensors, a file, or a path that does not exist."""
    folder = Path(source).expanduser()
    if folder.is_file():
        raise UserError(f"{option} {source}: a file; name the folder of a model in safetensors, never a pickle")
    if not folder.exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise UserError(f"{option} {source}: no such folder")
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"{option} {source}: no config.json; it is not a folder of a transformers model")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind)]
        problem = f"only {pickles[0]}, a pickle, which may run code" if pickles else "no weights"
        raise UserError(f"{option} {source}: {problem}; save it as model.safetensors")
