"""A whole Stable Diffusion pipeline with the student as its prompt encoder; everything else is copied untouched.

Which pipelines a student can serve: those of Stable Diffusion 1.x and 2.x, known by their small files.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from typing_extensions import TypedDict

from data.cli import UserError, one_line
from data.files import atomic_folder, read_json, validated
from distill.export.folder import FAST_TOKENIZER_CLASS

_UNSUPPORTED = ("StableDiffusionXL", "StableDiffusion3", "Flux")
"""How the class names of pipelines with several encoders begin."""


def check_pipeline_class(index: Mapping[str, Any], key: str) -> None:
    """Raise UserError where `index`, the content of model_index.json, is of SDXL or later; `key` heads the error."""
    kind = str(index.get("_class_name"))
    if kind.startswith(_UNSUPPORTED) or (index.get("text_encoder_2") or [None, None])[1] is not None:
        _raise_unsupported(f"a {kind}", key)


def check_unet_config(config: Mapping[str, Any], key: str) -> None:
    """Raise UserError where the UNet of `config` asks for more than the states of one encoder, as SDXL's does."""
    if config.get("addition_embed_type") is not None:
        _raise_unsupported("its UNet", key)


def _raise_unsupported(subject: str, key: str) -> None:
    raise UserError(
        f"{key}: {subject} has two encoders or more (SDXL, SD 3, FLUX); give one of Stable Diffusion 1.x or 2.x"
    )


PIPELINE_FILES = ("*.json", "*.txt", "*.safetensors", "*.model", "*.md")
REPLACED_PARTS = ("text_encoder", "tokenizer")
Component = tuple[str | None, str | None]
"""Library and class, both null where the pipeline goes without."""


class PipelineIndex(TypedDict):
    """What counts in the model_index.json of a pipeline."""

    text_encoder: NotRequired[Component]
    text_encoder_2: NotRequired[Component]


def write_pipeline(student: Path, source: str, out: Path) -> None:
    """Write to `out` the pipeline `source`, a folder or Hub id, with `student` inside, whole or not at all.

    `student` is an exported folder. A pipeline with two encoders, with an encoder of another class, or whose UNet
    expects another width raises UserError.
    """
    pipeline = resolve_pipeline(source)
    check_pipeline_out(out, student, pipeline)
    check_pipeline_fit(read_json(student / "text_encoder" / "config.json")["hidden_size"], source)
    with atomic_folder(out) as folder:
        shutil.copytree(pipeline, folder, ignore=_ignored_files)
        for part in REPLACED_PARTS:
            shutil.copytree(student / part, folder / part)
        _set_fast_tokenizer(folder / "model_index.json")


def resolve_pipeline(source: str) -> Path:
    """The folder of a pipeline; a Hub id is fetched into the cache, safetensors only."""
    folder = Path(source)
    if not folder.exists() and source.count("/") == 1 and not source.startswith((".", "/")):
        try:
            folder = Path(snapshot_download(source, allow_patterns=list(PIPELINE_FILES)))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(f"--pipeline {source}: cannot be fetched from the Hub ({one_line(error)})") from error
    if not (folder / "model_index.json").is_file():
        raise UserError(f"--pipeline {source}: no model_index.json; give the folder or Hub id of a diffusers pipeline")
    return folder


def check_pipeline_out(out: Path, student: Path, pipeline: Path) -> None:
    """Raise UserError unless a copy can be written to `out`, apart from the folders of `student` and `pipeline`."""
    target = out.resolve()
    for key, other in (("--out", student.resolve()), ("--pipeline", pipeline.resolve())):
        if target == other or target in other.parents or other in target.parents:
            raise UserError(f"--pipeline-out {out}: lies on, in or around the folder of {key}; name one apart from it")
    if out.exists() and not (out / "model_index.json").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"--pipeline-out {out}: something else is there; name a new folder")
    if not target.parent.is_dir():
        raise UserError(f"--pipeline-out {out}: no folder {out.parent}; make it first")


def check_pipeline_fit(width: int, source: str) -> None:
    """Raise UserError unless a student with states of `width` can stand in `source`."""
    pipeline = resolve_pipeline(source)
    path = pipeline / "model_index.json"
    index = validated(read_json(path), PipelineIndex, str(path), "give the folder of a diffusers pipeline")
    check_pipeline_class(index, f"--pipeline {source}")
    if index.get("text_encoder", (None, None))[1] != "CLIPTextModel":
        raise UserError(f"--pipeline {source}: its encoder is not a CLIPTextModel; the student cannot stand in for it")
    path = pipeline / "unet" / "config.json"
    unet = validated(read_json(path), dict[str, object], str(path), "fetch the pipeline again")
    check_unet_config(unet, f"--pipeline {source}")
    expected = unet.get("cross_attention_dim")
    if width != expected:
        raise UserError(
            f"--pipeline {source}: its UNet reads states of width {expected}, the student's have {width}; "
            "distil from the encoder of this very pipeline"
        )
    pickles = [path for part in ("unet", "vae") if not any((pipeline / part).glob("*.safetensors"))
               for path in (pipeline / part).glob("*.bin")]  # fmt: skip
    if pickles:
        raise UserError(f"--pipeline {source}: {pickles[0].name} is a pickle, which may run code; save safetensors")


def _ignored_files(folder: str, names: list[str]) -> list[str]:
    """What stays behind: the old encoder and tokenizer, and everything that may hold a pickle."""
    is_root = Path(folder).joinpath("model_index.json").exists()
    unsafe = [name for name in names if Path(name).suffix in {".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx"}]
    return [*unsafe, *(name for name in names if name == ".git" or (is_root and name in REPLACED_PARTS))]


def _set_fast_tokenizer(path: Path) -> None:
    """Have diffusers load the tokenizer by the name that takes tokenizer.json as it stands.

    `CLIPTokenizer` is, up to transformers 4, one in Python that stops after CLIP's own 48,894 merges, and from 5 on
    one that does not cut Chinese from Latin letters.
    """
    index = {**read_json(path), "tokenizer": ["transformers", FAST_TOKENIZER_CLASS]}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
