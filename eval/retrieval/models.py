"""Load CLIP towers from a folder or a Hub id, and refuse whatever would load wrongly without a word.

The device that a command computes on.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPConfig,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from data.cli import UserError, one_line, panics_as_errors
from distill.text_tower import check_weights
from eval.retrieval.preprocess import OPENAI_MEAN, OPENAI_STD, ImagePreprocessing

LEGACY_EOS_ID = 2
"""The end-of-text id in old CLIP configs, which means: pool at the largest id of the sentence."""


@dataclass(frozen=True)
class TextTower:
    """A CLIP text tower with its tokenizer.

    `embed` makes features [batch, width] of ids [batch, length], which end in end-of-text; `slots` is the most that
    length may be.
    """

    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    feature_dim: int


@dataclass(frozen=True)
class ImageTower:
    """A CLIP image tower with its projection, and the pixels that it expects."""

    model: CLIPVisionModelWithProjection
    preprocessing: ImagePreprocessing


def load_text_tower(source: str, option: str, dtype: torch.dtype, device: torch.device) -> TextTower:
    """The text tower of `source`, a CLIPTextModelWithProjection or whole CLIPModel with its tokenizer.

    `option` is the command-line option that named it, for the complaint. Anything else raises UserError. A path that
    ends in .onnx is an exported ONNX file.
    """
    if source.endswith(".onnx"):
        return load_onnx_tower(Path(source), option)
    check_safetensors(source, option)
    tokenizer = load_transformers(AutoTokenizer, source, option)
    model = _load_complete(CLIPTextModelWithProjection, source, option, dtype)
    eos_id, last_id = model.config.eos_token_id, model.config.vocab_size - 1
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"{option} {source}: its tokenizer has {len(tokenizer)} tokens and its model {model.config.vocab_size}; "
            "they do not belong together"
        )
    if eos_id != tokenizer.eos_token_id and not (eos_id == LEGACY_EOS_ID and tokenizer.eos_token_id == last_id):
        raise UserError(
            f"{option} {source}: config.json has eos_token_id {eos_id} and the tokenizer {tokenizer.eos_token_id}, so "
            f"the wrong slot would be pooled; set eos_token_id to {tokenizer.eos_token_id}"
        )
    return TextTower(
        _embed_function(model.to(device).eval()),
        tokenizer,
        max_length=int(model.config.max_position_embeddings),
        feature_dim=int(model.text_projection.out_features),
    )


def _embed_function(model: CLIPTextModelWithProjection) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    def embed(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: Any = model(input_ids=torch.from_numpy(ids).to(model.device))
        features: NDArray[np.float32] = found.text_embeds.float().cpu().numpy()
        return features

    return embed


def load_onnx_tower(path: Path, option: str) -> TextTower:
    """The exported ONNX file `STUDENT/onnx/*.onnx`, with the tokenizer of STUDENT, on the CPU."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{option} {path}: ONNX needs the package onnxruntime; pip install 'yuqiao[onnx]'")
    if not path.is_file():
        raise UserError(f"{option} {path}: no such file")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    tokenizer = load_transformers(AutoTokenizer, str(path.absolute().parent.parent), option)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        width = next(int(each.shape[1]) for each in session.get_outputs() if each.name == "text_embeds")
    except Exception as error:  # its own classes, one a status code, have no common ancestor but this
        raise UserError(f"{option} {path}: not an exported ONNX student ({one_line(error)})") from error

    def embed(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(["text_embeds"], {"input_ids": ids})[0]
        return features

    return TextTower(embed, tokenizer, max_length=int(tokenizer.model_max_length), feature_dim=width)


def load_image_tower(source: str, option: str, dtype: torch.dtype, device: torch.device) -> ImageTower:
    """The image tower of the whole CLIPModel at `source`, with the mean and deviation of its preprocessor_config."""
    check_safetensors(source, option)
    if load_transformers(AutoConfig, source, option).model_type != CLIPConfig.model_type:
        raise UserError(f"{option} {source}: has no image tower; give a whole CLIPModel or --image-features")
    model = _load_complete(CLIPVisionModelWithProjection, source, option, dtype)
    return ImageTower(model.to(device).eval(), _preprocessing(source, int(model.config.image_size)))


def _preprocessing(source: str, size: int) -> ImagePreprocessing:
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:  # a folder of weights alone: OpenAI's constants, as in every CLIP that names none
        return ImagePreprocessing(size)
    return ImagePreprocessing(
        size, tuple(settings.get("image_mean", OPENAI_MEAN)), tuple(settings.get("image_std", OPENAI_STD))
    )


def check_safetensors(source: str, option: str) -> None:
    """Raise UserError where `source` is a folder without safetensors, a file, or a path that does not exist."""
    folder = Path(source)
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


def _load_complete(model_class: Any, source: str, option: str, dtype: torch.dtype) -> Any:  # noqa: ANN401  a transformers class
    """As `loaded`, but a weight that is missing or misfits is an error: transformers would draw it at random."""
    model, loading_info = load_transformers(
        model_class, source, option, dtype=dtype, use_safetensors=True, output_loading_info=True
    )
    missing = sorted([*loading_info["missing_keys"], *(str(key) for key in loading_info["mismatched_keys"])])
    if missing:
        raise UserError(
            f"{option} {source}: {len(missing)} weights of a {model_class.__name__} "
            f"are missing or misfit, {missing[0]} first"
        )
    check_weights(model, (), f"{option} {source}")
    return model


def load_transformers(model_class: Any, source: str, option: str, **settings: Any) -> Any:  # noqa: ANN401  a transformers class
    """`kind.from_pretrained(source)`, with whatever goes wrong as one UserError that names `option`."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of a second would hide the lines that matter
    try:
        with panics_as_errors():
            return model_class.from_pretrained(source, **settings)
    except Exception as error:  # a missing id, no network, a wrong class; a damaged file raises whatever it likes
        raise UserError(f"{option} {source}: cannot be loaded as {model_class.__name__} ({one_line(error)})") from error


def resolve_device(name: str | None) -> torch.device:
    """The device `name`, or without one cuda where there is one; UserError where torch cannot use it."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # also NotImplementedError, of `meta`
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device
