"""Guarded loading of models and tokenizers, from local folders and Hub ids, whole models and parts of pipelines.

Accepted layouts: a model's own folder; a pipeline, or its `text_encoder/`, with the tokenizer beside it; also as Hub
ids (`ORG/NAME`, `ORG/NAME/text_encoder`). Weights may be sharded, or of the fp16 variant alone. A checkpoint in one
file (`FILE.safetensors`) is read as the pipeline's folder that `single_file` makes of it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from huggingface_hub import ModelCard, snapshot_download
from tokenizers.models import BPE
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils.hub import cached_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from data.cli import UserError, one_line, panics_as_errors
from distill.single_file import unpacked

EncoderPart = Literal["text_encoder", "text_encoder_2"]
ENCODER_PARTS: tuple[EncoderPart, ...] = get_args(EncoderPart)
"""The folder of an encoder in a pipeline: of the only one, or of SDXL's two in their order."""
_COMPONENTS = {"text_encoder": "config.json", "tokenizer": "tokenizer_config.json"}
"""Folders of a pipeline, and of an exported student, with the file by which each is known."""


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))  # of a folder, and no Hub id


@dataclass(frozen=True)
class ModelSource:
    """A local folder or a Hub id, and the folder inside it."""

    name: str
    subfolder: str = ""

    def has(self, file: str) -> bool:
        """Whether `file` is there; for a Hub id it is downloaded."""
        if Path(self.name).is_dir():
            return (Path(self.name) / self.subfolder / file).is_file()
        if _is_path(self.name):  # nothing to ask the Hub
            return False
        try:
            return cached_file(self.name, file, subfolder=self.subfolder) is not None
        except OSError:
            return False


def resolve_source(name: str, option: str) -> str:
    """The folder or Hub id `name` with `~` expanded; of a `text_encoder/` or `tokenizer/`, the folder around both.

    The path of a local folder that does not exist raises UserError.
    """
    name = unpacked(name, option)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if _is_path(name):
            raise UserError(f"{option}: no folder {name!r} (looked in {Path.cwd()})")
        return name
    siblings = [folder.absolute().parent / sibling for sibling in _COMPONENTS]
    has_siblings = folder.name in _COMPONENTS and all(sibling.is_dir() for sibling in siblings)
    return str(folder.parent if has_siblings else folder)


def component_source(name: str, option: str, component: str) -> ModelSource:
    """Where the `component` of a model or pipeline lies: at the root, inside it, or beside a `text_encoder_2/`."""
    resolved, marker = resolve_source(name, option), _COMPONENTS[component]
    if Path(resolved).is_dir():
        folder = Path(resolved).absolute()
        beside = folder.parent / folder.name.replace("text_encoder", component)
        candidates = [ModelSource(resolved), ModelSource(resolved, component), ModelSource(str(beside))]
    else:
        repository, *inside = resolved.split("/", 2)[:2], *resolved.split("/", 2)[2:]
        candidates = [ModelSource("/".join(repository), part.replace("text_encoder", component)) for part in inside]
        candidates = candidates or [ModelSource(resolved), ModelSource(resolved, component)]
    return next((source for source in candidates if source.has(marker)), ModelSource(resolved))


def base_model(source: str, option: str) -> str:
    """The base model that the card of a student names, `source` a folder or Hub id, or its encoder of SDXL's two.

    `option` names what gives it where the card does not.
    """
    folder, _, part = source.rpartition("/")
    name = folder if (is_part := part in ENCODER_PARTS) else source
    card = Path(name).expanduser() / "README.md"
    try:
        base = ModelCard.load(card if card.is_file() else name).data.base_model
    except Exception as error:  # what the Hub, a file or its YAML raise
        raise UserError(f"{option}: {source!r} has no card that names it ({one_line(error)}); give it") from error
    if not isinstance(base, str):
        raise UserError(f"{option}: the card of {source!r} names no base model; give the teacher it was taught from")
    return f"{base}/{part}" if is_part else base


def load_pretrained_model(
    cls: Any,  # noqa: ANN401  # a model class of transformers or diffusers
    source: str,
    option: str,
    what: str,
    **kwargs: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """`cls.from_pretrained(source, **kwargs)` from safetensors: every weight there and finite; else UserError.

    `source` is a local folder or a Hub id, `option` names the command-line option or key that gave it, `what` the model
    ("CLIP text tower").
    """
    model, missing = load_with_missing(cls, source, option, what, **kwargs)
    check_weights(model, missing, f"{option}: {source!r}")
    return model


def load_with_missing(
    cls: Any,  # noqa: ANN401
    source: str,
    option: str,
    what: str,
    **kwargs: Any,  # noqa: ANN401
) -> tuple[Any, set[str]]:
    """The same, and the names of missing weights, unchecked."""
    if "subfolder" in kwargs:
        place = ModelSource(resolve_source(source, option), kwargs.pop("subfolder") or "")
    else:
        place = component_source(source, option, "text_encoder")
    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]  # missing weights are one line of ours
    settings = {"subfolder": place.subfolder, "use_safetensors": True, "output_loading_info": True, **kwargs}
    try:
        model, info = _from_pretrained(cls, place.name, settings)
    except Exception as error:  # damaged files raise whatever their reader meets
        raise UserError(f"{option}: {source!r} holds no {what} in safetensors ({one_line(error)})") from error
    return model, set(info["missing_keys"])


def _from_pretrained(cls: Any, name: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    """Weights in full precision, or the fp16 variant where there are no others."""
    try:
        return cls.from_pretrained(name, **settings)
    except OSError as error:
        try:
            return cls.from_pretrained(name, variant="fp16", **settings)
        except OSError:
            raise error from None


def check_weights(model: nn.Module, missing: Collection[str], where: str) -> None:
    """UserError for a missing weight, or one that is not finite: a diverged training, or an overflow in fp16."""
    if missing:
        raise UserError(f"{where} has no weight {min(missing)}; its files are incomplete or of another kind of model")
    if broken := next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None):
        raise UserError(f"{where}: the weight {broken} is not finite; take an earlier checkpoint or another download")


def load_any_tokenizer(name: str, option: str, **settings: str) -> Any:  # noqa: ANN401  # the class that the folder names
    """The tokenizer of a local folder or a Hub id."""
    source = component_source(name, option, "tokenizer")
    try:
        folder = source.name
        if source.subfolder and not Path(folder).is_dir():  # AutoTokenizer expects a config.json beside it on the Hub
            folder = snapshot_download(source.name, allow_patterns=f"{source.subfolder}/*")
        with panics_as_errors():
            inside = str(Path(folder) / source.subfolder) if source.subfolder else folder
            tokenizer = AutoTokenizer.from_pretrained(inside, **settings)
    except Exception as error:  # as above
        raise UserError(f"{option}: {name!r} holds no tokenizer ({one_line(error)})") from error
    if {*tokenizer.get_vocab()} <= {*tokenizer.all_special_tokens}:  # transformers loads a folder without its files so
        raise UserError(f"{option}: {name!r} holds no words of a tokenizer: tokenizer.json or vocab.json is missing")
    return tokenizer


def load_clip_tokenizer(name: str, option: str, **settings: str) -> PreTrainedTokenizerFast:
    """The CLIP tokenizer of a local folder or a Hub id, or one of its kind (`extended`'s); see `is_clip_bpe`."""
    tokenizer = load_any_tokenizer(name, option, **settings)
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not is_clip_bpe(tokenizer):
        raise UserError(f"{option}: {name!r} has a {type(tokenizer).__name__}; a CLIPTokenizer is needed")
    return tokenizer


def is_clip_bpe(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a tokenizer is byte-level BPE whose words end in a token with `</w>`, as CLIP's."""
    model = tokenizer.backend_tokenizer.model
    return isinstance(model, BPE) and model.end_of_word_suffix == "</w>"


OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def channel_statistics(source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in 0..1, of the channels of a CLIP's pictures; OpenAI's where `source` has none."""
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:  # a folder of weights alone
        settings = {}
    return tuple(settings.get("image_mean", OPENAI_MEAN)), tuple(settings.get("image_std", OPENAI_STD))


def torch_dtype(precision: Literal["fp32", "bf16", "fp16"]) -> torch.dtype:
    """The type of a tower's weights at `precision`."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def resolve_device(name: str | None) -> torch.device:
    """The device `name`, by default the accelerator or else the CPU; UserError where torch cannot use it."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        device = torch.device(name) if name else accelerator or torch.device("cpu")
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # also NotImplementedError, of `meta`
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device
