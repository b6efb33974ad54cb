"""A copy of a Stable Diffusion pipeline with the student as its prompt encoder; everything else stays as it is.

A student can serve pipelines of Stable Diffusion 1.x and 2.x, the pair of both encoders those of SDXL, recognised by
their small files.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NotRequired

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from typing_extensions import TypedDict

from data.cli import UserError, one_line
from data.files import atomic_folder, check_out, read_json, validated, write_json
from distill.export.folder import FAST_TOKENIZER_CLASS
from distill.single_file import unpacked

PIPELINE_FILES = ("*.json", "*.txt", "*.safetensors", "*.model", "*.md")
REPLACED_PARTS = ("text_encoder", "tokenizer")
REPLACED_PAIR = (*REPLACED_PARTS, "text_encoder_2", "tokenizer_2")
UNSAFE_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx"}
"""Files that may hold a pickle, or another form of the weights."""
_XL = "StableDiffusionXL"
_UNSUPPORTED = ("StableDiffusion3", "Flux")
"""How the class names of pipelines with several encoders begin: SDXL's, and those that no student serves."""
Component = tuple[str | None, str | None]
"""Library and class of a component, both null where the pipeline has none."""


class PipelineIndex(TypedDict):
    """The entries of a pipeline's model_index.json that decide whether a student fits."""

    text_encoder: NotRequired[Component]
    text_encoder_2: NotRequired[Component]


@dataclass(frozen=True)
class PipelineSource:
    """A pipeline as the user named it, and the folder that holds it."""

    name: str
    folder: Path


def resolve_pipeline(name: str) -> PipelineSource:
    """The pipeline `name`, a folder or a Hub id; the latter is fetched into the cache, safetensors only."""
    name = unpacked(name, "--pipeline")
    folder = Path(name)
    if not folder.exists() and name.count("/") == 1 and not name.startswith((".", "/")):
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(PIPELINE_FILES)))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(f"--pipeline {name}: cannot be fetched from the Hub ({one_line(error)})") from error
    if not (folder / "model_index.json").is_file():
        raise UserError(f"--pipeline {name}: no model_index.json; give the folder or Hub id of a diffusers pipeline")
    return PipelineSource(name, folder)


def check_pipeline_out(out: Path, student: Path, pipeline: PipelineSource) -> None:
    """Raise UserError unless a copy can be written to `out`, apart from the folders of `student` and `pipeline`."""
    target = out.resolve()
    for key, other in (("--out", student.resolve()), ("--pipeline", pipeline.folder.resolve())):
        if target == other or target in other.parents or other in target.parents:
            raise UserError(f"--pipeline-out {out}: lies on, in or around the folder of {key}; name one apart from it")
    check_out("--pipeline-out", out, lambda folder: (folder / "model_index.json").is_file())


def check_pipeline_fit(widths: Sequence[int], pipeline: PipelineSource) -> None:
    """Raise UserError unless encoders with states of `widths`, one or SDXL's two, can stand in `pipeline`."""
    key, path = f"--pipeline {pipeline.name}", pipeline.folder / "model_index.json"
    index = validated(read_json(path), PipelineIndex, str(path), "give the folder of a diffusers pipeline")
    if num_encoders(index, key) != len(widths):
        raise UserError(f"{key}: it has {num_encoders(index, key)} text encoders, the student {len(widths)}")
    if index.get("text_encoder", (None, None))[1] != "CLIPTextModel":
        raise UserError(f"{key}: its encoder is not a CLIPTextModel; the student cannot stand in for it")
    path = pipeline.folder / "unet" / "config.json"
    unet = validated(read_json(path), dict[str, object], str(path), "fetch the pipeline again")
    check_unet_config(unet, key, len(widths))
    if unet.get("cross_attention_dim") != sum(widths):
        raise UserError(
            f"{key}: its UNet reads states of width {unet.get('cross_attention_dim')}, the student's have "
            f"{' + '.join(map(str, widths))}; distil from the encoder of this very pipeline"
        )
    for part in (pipeline.folder / "unet", pipeline.folder / "vae"):
        pickles = list(part.glob("*.bin"))
        if pickles and not any(part.glob("*.safetensors")):
            raise UserError(f"{key}: {pickles[0].name} is a pickle, which may run code; save safetensors")


def num_encoders(index: Mapping[str, Any], key: str) -> int:
    """The text encoders by a pipeline's model_index.json: 1, or SDXL's 2; for others UserError, headed by `key`."""
    kind, second = str(index.get("_class_name")), (index.get("text_encoder_2") or [None, None])[1] is not None
    if kind.startswith(_UNSUPPORTED) or second != kind.startswith(_XL):
        raise UserError(f"{key}: a {kind} reads other encoders; give a pipeline of Stable Diffusion 1.x, 2.x or XL")
    if second and (index.get("text_encoder") or [None, None])[1] is None:
        raise UserError(f"{key}: it has no text_encoder (SDXL's refiner?); give the base pipeline, with both encoders")
    return 1 + second


def check_unet_config(config: Mapping[str, Any], key: str, encoders: int) -> None:
    """Raise UserError where the UNet of `config` is not one for so many encoders."""
    wanted = "text_time" if encoders == 2 else None
    if config.get("addition_embed_type") != wanted:
        raise UserError(f"{key}: its UNet reads {config.get('addition_embed_type')!r} beside states, not {wanted!r}")


def write_pipeline(student: Path, pipeline: Path, out: Path) -> None:
    """Write a copy of the folder `pipeline` with the exported folder `student` inside to `out`, whole or not at all."""
    parts = REPLACED_PAIR if (student / "text_encoder_2").is_dir() else REPLACED_PARTS
    with atomic_folder(out) as folder:
        shutil.copytree(pipeline, folder, ignore=partial(_ignored_files, parts))
        for part in parts:
            shutil.copytree(student / part, folder / part)
        _set_fast_tokenizers(folder / "model_index.json", [part for part in parts if part.startswith("tokenizer")])


def _ignored_files(parts: Sequence[str], folder: str, names: list[str]) -> list[str]:
    """The replaced parts, and everything that may hold a pickle."""
    is_root = Path(folder).joinpath("model_index.json").exists()
    unsafe = [name for name in names if Path(name).suffix in UNSAFE_SUFFIXES]
    return [*unsafe, *(name for name in names if name == ".git" or (is_root and name in parts))]


def _set_fast_tokenizers(path: Path, parts: Sequence[str]) -> None:
    """Name the tokenizers' class by which diffusers takes tokenizer.json as it stands.

    `CLIPTokenizer` is, up to transformers 4, one in Python that stops after CLIP's own 48,894 merges, and from 5 on
    one that does not cut Chinese from Latin letters.
    """
    index = {**read_json(path), **{part: ["transformers", FAST_TOKENIZER_CLASS] for part in parts}}
    write_json(index, path)
