"""Checkpoints in one file, as Civitai has them: read by diffusers, as a pipeline's folder beside the file."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from data.cli import UserError, one_line
from data.files import atomic_folder, check_out, file_lock

_NAME = re.compile(r"(?P<file>.+?\.(safetensors|ckpt))(@(?P<base>.+?))?(?P<part>/text_encoder(_2)?)?")
_PIPELINES = {
    "cond_stage_model.": "StableDiffusionPipeline",
    "conditioner.embedders.1.model.": "StableDiffusionXLPipeline",
}
"""How the names of a text encoder's tensors begin, with the class that diffusers has for such a file."""
_INDEX, _BASE = "model_index.json", "base.txt"


def unpacked(name: str, option: str) -> str:
    """`name`; of a checkpoint FILE.safetensors[@BASE][/text_encoder] the folder FILE.diffusers[/text_encoder].

    The folder is written at the first use, and again where the file or BASE is another one. Configurations and
    tokenizers are those of the pipeline BASE, a folder or Hub id, by default of the one on the Hub that diffusers knows
    for such a file. `option` heads the UserError for a file that is no checkpoint of Stable Diffusion 1.x, 2.x or XL.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    file = Path(match["file"]).expanduser().absolute()
    if not file.is_file():
        raise UserError(f"{option}: no file {file}")
    if file.suffix == ".ckpt":
        raise UserError(f"{option}: {file.name} is a pickle, which may run code; take it in safetensors")
    folder, base = file.with_suffix(".diffusers"), match["base"]
    if not _is_of(folder, file, base):
        with file_lock(folder):
            if not _is_of(folder, file, base):  # another process may have written it in the meantime
                _write(file, base, folder, option)
    return f"{folder}{match['part'] or ''}"


def _is_of(folder: Path, file: Path, base: str | None) -> bool:
    """Whether the folder was written from this very file, whose time its index has, and of `base` if one is given."""
    index = folder / _INDEX
    if not index.is_file() or index.stat().st_mtime_ns != file.stat().st_mtime_ns:
        return False
    return base is None or (folder / _BASE).read_text(encoding="utf-8") == base


def _write(file: Path, base: str | None, folder: Path, option: str) -> None:
    import diffusers  # seconds of imports, which only such a file needs

    check_out(option, folder, lambda old: (old / _INDEX).is_file())
    settings: dict[str, Any] = {"config": base} if base else {}
    if base and (local := Path(base).expanduser()).is_dir():
        settings = {"config": str(local), "local_files_only": True}
    print(f"{file}: writing what diffusers reads of it to {folder}", flush=True)
    try:
        with safe_open(file, "pt") as tensors:
            names = set(tensors.keys())
            types = {tensors.get_slice(name).get_dtype() for name in names}
        kinds = [kind for start, kind in _PIPELINES.items() if any(name.startswith(start) for name in names)]
        if not kinds:
            raise UserError(f"{option}: {file} holds no text encoders of Stable Diffusion 1.x, 2.x or XL")
        if not types & {"F32", "BF16"}:  # else the folder, in float32, has twice the size of the file
            settings["torch_dtype"] = torch.float16
        pipeline = getattr(diffusers, kinds[0]).from_single_file(str(file), **settings)
    except UserError:
        raise
    except Exception as error:  # diffusers raises anything for a file that lacks a part, or without network
        fix = "for configurations of a local pipeline of the same base write FILE@PIPELINE"
        raise UserError(f"{option}: diffusers cannot read {file} ({one_line(error)}); {fix}") from error
    if "v_pred" in names:  # by which such checkpoints say it, as "ztsnr" that the last step is pure noise
        pipeline.scheduler.register_to_config(prediction_type="v_prediction", rescale_betas_zero_snr="ztsnr" in names)
    with atomic_folder(folder) as partial:
        pipeline.save_pretrained(partial)
        (partial / _BASE).write_text(base or "", encoding="utf-8")
        os.utime(partial / _INDEX, ns=(file.stat().st_mtime_ns,) * 2)
