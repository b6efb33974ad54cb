"""CLIP text towers from a folder, a Hub id or an ONNX file, and the features of captions.

A checkpoint that transformers would load wrongly without an error is a UserError here.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import CLIPTextModelWithProjection
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from data.cli import UserError, one_line
from data.files import check_safetensors
from distill.loading import load_any_tokenizer, load_pretrained_model
from distill.text_encoder import length_sorted_batches
from eval.metrics import l2_normalise
from eval.retrieval.result import Protocol, normalise_caption

IMMICH_MODEL = Path("textual") / "model.onnx"
LEGACY_EOS_ID = 2
"""The end-of-text id in old CLIP configs, which means: pool at the largest id of the sentence."""


@dataclass(frozen=True)
class TextTower:
    """A CLIP text tower with its tokenizer.

    `embed` computes features [batch, feature_dim] of ids [batch, length], padded with end-of-text; length is at most
    `max_length`.
    """

    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    feature_dim: int


@dataclass(frozen=True)
class TextFeatures:
    """features [captions, dim], float32 and L2-normalised; `cut` of the captions were too long and lost their ends."""

    features: NDArray[np.float32]
    cut: int


def token_ids(tower: TextTower, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
    """Ids of each text, at most `max_length` with the end-of-text kept, and the number of texts that were cut."""
    full_ids: list[list[int]] = tower.tokenizer(list(texts), verbose=False).input_ids
    end = int(tower.tokenizer.eos_token_id)
    cut = sum(len(ids) > max_length for ids in full_ids)
    return [ids if len(ids) <= max_length else [*ids[: max_length - 1], end] for ids in full_ids], cut


def text_features(
    tower: TextTower, texts: Sequence[str], protocol: Protocol, max_length: int | None = None, batch_size: int = 128
) -> TextFeatures:
    """Encode captions in batches of like length, in the order of `texts`; `max_length` is the protocol's by default."""
    limit = min(max_length or protocol.max_length, tower.max_length)
    ids, cut = token_ids(tower, [normalise_caption(text, protocol) for text in texts], limit)
    batches = length_sorted_batches(ids, int(tower.tokenizer.eos_token_id), batch_size)
    features = np.zeros((len(ids), tower.feature_dim), dtype=np.float32)
    for batch in tqdm(batches, desc="captions", unit="batch", leave=False, disable=None):
        features[batch.rows] = tower.embed(batch.ids)
    return TextFeatures(l2_normalise(features), cut)


def load_text_tower(source: str, option: str, dtype: torch.dtype, device: torch.device) -> TextTower:
    """The text tower of a CLIPTextModelWithProjection or whole CLIPModel with its tokenizer; UserError for all else.

    A `source` that ends in .onnx is an exported ONNX file; the folders of the parts `immich` and `open_clip` are read
    as those programs read them. `option` is the command-line option that named it.
    """
    folder = Path(source).expanduser()
    if source.endswith(".onnx"):
        return load_onnx_tower(Path(source), option)
    if (folder / IMMICH_MODEL).is_file():
        return load_onnx_tower(folder / IMMICH_MODEL, option)
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip_tower(folder, option, dtype, device)
    check_safetensors(source, option)
    tokenizer = load_any_tokenizer(source, option)
    model = load_pretrained_model(CLIPTextModelWithProjection, source, option, "CLIP text tower", dtype=dtype)
    _check_tokenizer_fit(model, tokenizer, f"{option} {source}")
    return TextTower(
        partial(_embed_with_torch, model.to(device).eval()),
        tokenizer,
        max_length=int(model.config.max_position_embeddings),
        feature_dim=int(model.text_projection.out_features),
    )


def _check_tokenizer_fit(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    eos_id, last_id = model.config.eos_token_id, model.config.vocab_size - 1
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens and its model {model.config.vocab_size}; "
            "they do not belong together"
        )
    if eos_id != tokenizer.eos_token_id and not (eos_id == LEGACY_EOS_ID and tokenizer.eos_token_id == last_id):
        raise UserError(
            f"{where}: config.json has eos_token_id {eos_id} and the tokenizer {tokenizer.eos_token_id}, so "
            f"the wrong slot would be pooled; set eos_token_id to {tokenizer.eos_token_id}"
        )


def _embed_with_torch(model: CLIPTextModelWithProjection, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    with torch.inference_mode():
        output: Any = model(input_ids=torch.from_numpy(ids).to(model.device))
    features: NDArray[np.float32] = output.text_embeds.float().cpu().numpy()
    return features


def load_onnx_tower(path: Path, option: str) -> TextTower:
    """The exported ONNX file `STUDENT/onnx/*.onnx` with the tokenizer of STUDENT, on the CPU; or that for Immich."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{option} {path}: ONNX needs the package onnxruntime; pip install 'yuqiao[onnx]'")
    if not path.is_file():
        raise UserError(f"{option} {path}: no such file")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    for_immich = path.parent.name == IMMICH_MODEL.parent.name
    tokenizer = load_any_tokenizer(str(path.absolute().parent if for_immich else path.absolute().parent.parent), option)
    output = "text_features" if for_immich else "text_embeds"
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        width = next(int(each.shape[1]) for each in session.get_outputs() if each.name == output)
    except Exception as error:  # its classes, one per status code, have no other common ancestor
        raise UserError(f"{option} {path}: not an exported ONNX student ({one_line(error)})") from error
    embed = partial(_embed_with_onnx, session, output)
    return TextTower(embed, tokenizer, max_length=int(tokenizer.model_max_length), feature_dim=width)


def _embed_with_onnx(session: Any, output: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:  # noqa: ANN401  untyped
    given = session.get_inputs()[0]
    typed = ids.astype(np.int32) if given.type == "tensor(int32)" else ids
    features: NDArray[np.float32] = session.run([output], {given.name: typed})[0]
    return features


def _load_open_clip_tower(folder: Path, option: str, dtype: torch.dtype, device: torch.device) -> TextTower:
    if importlib.util.find_spec("open_clip") is None:
        raise UserError(f"{option} {folder}: needs the package open_clip; pip install open_clip_torch")
    open_clip: Any = importlib.import_module("open_clip")
    try:
        model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder.absolute()}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder.absolute()}").tokenizer
    except Exception as error:  # whatever it meets in a damaged folder
        raise UserError(f"{option} {folder}: open_clip cannot load it ({one_line(error)})") from error
    model = model.to(device=device, dtype=dtype).eval()
    length, dim = int(model.context_length), int(model.text_projection.shape[1])
    return TextTower(partial(_embed_with_open_clip, model, length), tokenizer, max_length=length, feature_dim=dim)


def _embed_with_open_clip(model: Any, length: int, ids: NDArray[np.int64]) -> NDArray[np.float32]:  # noqa: ANN401  untyped
    """It takes texts of one length, padded with anything behind the end-of-text."""
    padded = np.pad(ids, ((0, 0), (0, length - ids.shape[1])), mode="edge")
    with torch.inference_mode():
        output: Any = model.encode_text(torch.from_numpy(padded).to(model.logit_scale.device))
    features: NDArray[np.float32] = output.float().cpu().numpy()
    return features


def model_files(source: str) -> list[Path]:
    """The files of a model's folder that decide its scores, or the ONNX file itself; none for a Hub id."""
    folder = Path(source)
    if folder.suffix == ".onnx":
        return [folder]
    names = ("config.json", "tokenizer.json", "vocab.json", "merges.txt", "preprocessor_config.json",
             "open_clip_config.json", str(IMMICH_MODEL), "textual/tokenizer.json")  # fmt: skip
    return sorted([*folder.glob("*.safetensors"), *(folder / name for name in names if (folder / name).is_file())])
