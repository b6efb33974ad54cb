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
from data.files import read_json, shaped, whole_folder
from distill.export.folder import FAST

_OTHERS = ("StableDiffusionXL", "StableDiffusion3", "Flux")
"""How the class names of pipelines with several encoders begin."""


def refuse_other_kind(index: Mapping[str, Any], key: str) -> None:
    """Raise UserError where `index`, the content of model_index.json, is of SDXL or later; `key` heads the error."""
    kind = str(index.get("_class_name"))
    if kind.startswith(_OTHERS) or (index.get("text_encoder_2") or [None, None])[1] is not None:
        _refuse(f"a {kind}", key)


def refuse_other_unet(config: Mapping[str, Any], key: str) -> None:
    """Raise UserError where the UNet of `config` asks for more than the states of one encoder, as SDXL's does."""
    if config.get("addition_embed_type") is not None:
        _refuse("its UNet", key)


def _refuse(what: str, key: str) -> None:
    raise UserError(
        f"{key}: {what} has two encoders or more (SDXL, SD 3, FLUX); give one of Stable Diffusion 1.x or 2.x"
    )


KEPT = ("*.json", "*.txt", "*.safetensors", "*.model", "*.md")
SWAPPED = ("text_encoder", "tokenizer")
Component = tuple[str | None, str | None]
"""Library and class, both null where the pipeline goes without."""


class Index(TypedDict):
    """What counts in the model_index.json of a pipeline."""

    text_encoder: NotRequired[Component]
    text_encoder_2: NotRequired[Component]


def write_pipeline(student: Path, source: str, out: Path) -> None:
    """Write to `out` the pipeline `source`, a folder or Hub id, with `student` inside, whole or not at all.

    `student` is an exported folder. A pipeline with two encoders, with an encoder of another class, or whose UNet
    expects another width raises UserError.
    """
    pipeline = found_pipeline(source)
    refuse_place(out, student, pipeline)
    refuse_misfit(read_json(student / "text_encoder" / "config.json")["hidden_size"], source)
    with whole_folder(out) as folder:
        shutil.copytree(pipeline, folder, ignore=_not_taken)
        for part in SWAPPED:
            shutil.copytree(student / part, folder / part)
        _name_fast_tokenizer(folder / "model_index.json")


def found_pipeline(source: str) -> Path:
    """The folder of a pipeline; a Hub id is fetched into the cache, safetensors only."""
    folder = Path(source)
    if not folder.exists() and source.count("/") == 1 and not source.startswith((".", "/")):
        try:
            folder = Path(snapshot_download(source, allow_patterns=list(KEPT)))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(f"--pipeline {source}: cannot be fetched from the Hub ({one_line(error)})") from error
    if not (folder / "model_index.json").is_file():
        raise UserError(f"--pipeline {source}: no model_index.json; give the folder or Hub id of a diffusers pipeline")
    return folder


def refuse_place(out: Path, student: Path, pipeline: Path) -> None:
    """Raise UserError unless a copy can be written to `out`, apart from the folders of `student` and `pipeline`."""
    place = out.resolve()
    for key, other in (("--out", student.resolve()), ("--pipeline", pipeline.resolve())):
        if place == other or place in other.parents or other in place.parents:
            raise UserError(f"--pipeline-out {out}: lies on, in or around the folder of {key}; name one apart from it")
    if out.exists() and not (out / "model_index.json").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"--pipeline-out {out}: something else is there; name a new folder")
    if not place.parent.is_dir():
        raise UserError(f"--pipeline-out {out}: no folder {out.parent}; make it first")


def refuse_misfit(width: int, source: str) -> None:
    """Raise UserError unless a student with states of `width` can stand in `source`."""
    pipeline = found_pipeline(source)
    path = pipeline / "model_index.json"
    index = shaped(read_json(path), Index, str(path), "give the folder of a diffusers pipeline")
    refuse_other_kind(index, f"--pipeline {source}")
    if index.get("text_encoder", (None, None))[1] != "CLIPTextModel":
        raise UserError(f"--pipeline {source}: its encoder is not a CLIPTextModel; the student cannot stand in for it")
    path = pipeline / "unet" / "config.json"
    unet = shaped(read_json(path), dict[str, object], str(path), "fetch the pipeline again")
    refuse_other_unet(unet, f"--pipeline {source}")
    wanted = unet.get("cross_attention_dim")
    if width != wanted:
        raise UserError(
            f"--pipeline {source}: its UNet reads states of width {wanted}, the student's have {width}; "
            "distil from the encoder of this very pipeline"
        )
    pickles = [path for part in ("unet", "vae") if not any((pipeline / part).glob("*.safetensors"))
               for path in (pipeline / part).glob("*.bin")]  # fmt: skip
    if pickles:
        raise UserError(f"--pipeline {source}: {pickles[0].name} is a pickle, which may run code; save safetensors")


def _not_taken(folder: str, names: list[str]) -> list[str]:
    """What stays behind: the old encoder and tokenizer, and everything that may hold a pickle."""
    top = Path(folder).joinpath("model_index.json").exists()
    unsafe = [name for name in names if Path(name).suffix in {".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx"}]
    return [*unsafe, *(name for name in names if name == ".git" or (top and name in SWAPPED))]


def _name_fast_tokenizer(path: Path) -> None:
    """Have diffusers load the tokenizer by the name that takes tokenizer.json as it stands.

    `CLIPTokenizer` is, up to transformers 4, one in Python that stops after CLIP's own 48,894 merges, and from 5 on
    one that does not cut Chinese from Latin letters.
    """
    index = {**read_json(path), "tokenizer": ["transformers", FAST]}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
