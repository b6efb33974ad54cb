"""A whole Stable Diffusion pipeline with the student as its prompt encoder; everything else is copied untouched."""

import json
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from data.command import UserError, one_line
from distill.json_file import read_json
from distill.pipeline_kind import refuse_other_kind, refuse_other_unet
from distill.replace_folder import whole_folder

KEPT = ("*.json", "*.txt", "*.safetensors", "*.model", "*.md")
SWAPPED = ("text_encoder", "tokenizer")


def write_pipeline(student: Path, source: str, out: Path) -> None:
    """Write to `out` the pipeline `source`, a folder or Hub id, with `student` inside, whole or not at all.

    `student` is an exported folder. A pipeline with two encoders, with an encoder of another class, or whose UNet
    expects another width raises UserError.
    """
    pipeline = found_pipeline(source)
    refuse_misfit(read_json(student / "text_encoder" / "config.json")["hidden_size"], source, out)
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


def refuse_misfit(width: int, source: str, out: Path) -> None:
    """Raise UserError unless a student with states of `width` can stand in `source`, and its copy at `out`."""
    pipeline = found_pipeline(source)
    index = read_json(pipeline / "model_index.json")
    refuse_other_kind(index, f"--pipeline {source}")
    if index.get("text_encoder", [None, None])[1] != "CLIPTextModel":
        raise UserError(f"--pipeline {source}: its encoder is not a CLIPTextModel; the student cannot stand in for it")
    unet = read_json(pipeline / "unet" / "config.json")
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
    if out.resolve() == pipeline.resolve():
        raise UserError(f"--pipeline-out {out}: is the pipeline itself, which would be lost; name a new folder")
    if out.exists() and not (out / "model_index.json").is_file() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"--pipeline-out {out}: something else is there; name a new folder")


def _not_taken(folder: str, names: list[str]) -> list[str]:
    """What stays behind: the old encoder and tokenizer, and everything that may hold a pickle."""
    top = Path(folder).joinpath("model_index.json").exists()
    unsafe = [name for name in names if Path(name).suffix in {".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx"}]
    return [*unsafe, *(name for name in names if name == ".git" or (top and name in SWAPPED))]


def _name_fast_tokenizer(path: Path) -> None:
    """Have diffusers load the tokenizer by the name that reads tokenizer.json in transformers 4 and 5 alike.

    `CLIPTokenizer` is, up to transformers 4, one in Python that stops after CLIP's own 48,894 merges.
    """
    index = {**read_json(path), "tokenizer": ["transformers", "CLIPTokenizerFast"]}
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
