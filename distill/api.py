"""The student in three lines of Python: as an encoder of captions and prompts, or inside a diffusers pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.loading import (
    ENCODER_PARTS,
    EncoderPart,
    ModelSource,
    component_source,
    load_any_tokenizer,
    load_pretrained_model,
    resolve_source,
)
from distill.single_file import unpacked
from distill.student.tokenizer import load_fast_tokenizer
from distill.text_encoder import TextEncoder, TextEncoderPair
from distill.text_tower import load_tower

__all__ = ["TextEncoder", "TextEncoderPair", "is_pair", "load_pair", "load_student", "load_text_encoder", "plug_into"]


def load_student(source: str | Path, device: str | torch.device = "cpu", key: str = "load_student") -> TextEncoder:
    """The student of an exported folder or Hub id, float32; anything else raises UserError, which `key` heads.

    Of a folder without projection, as a pipeline is, it gives states alone; of SDXL's two encoders it is the pair.
    """
    if is_pair(source, key):
        return load_pair(source, key, device=device)
    if component_source(str(source), key, "text_encoder").subfolder:
        return load_text_encoder(source, key, device=device)
    tokenizer = load_fast_tokenizer(str(source), key)
    model: Any = load_tower(str(source), key)
    if len(tokenizer) > model.config.vocab_size or model.config.eos_token_id != tokenizer.eos_token_id:
        raise UserError(f"{key}: {str(source)!r} has a tokenizer and a model that do not belong together")
    return TextEncoder(model.to(device).eval(), tokenizer, source=resolve_source(str(source), key))


def is_pair(source: str | Path, key: str) -> bool:
    """Whether a folder or Hub id holds two text encoders, as SDXL's pipelines and their students do."""
    folder = Path(source := unpacked(str(source), key)).expanduser()
    return ModelSource(str(folder if folder.is_dir() else source), "text_encoder_2").has("config.json")


def load_text_encoder(
    source: str | Path,
    key: str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    part: EncoderPart = "text_encoder",
) -> TextEncoder:
    """The `part` of a student or pipeline, a folder or Hub id, with its tokenizer; else UserError."""
    name, kind = str(source), CLIPTextModel if part == "text_encoder" else CLIPTextModelWithProjection
    model: Any = load_pretrained_model(kind, name, key, f"{part}/", subfolder=part, dtype=dtype)
    folder = Path(resolve_source(name, key))
    inside = folder / part.replace("text_encoder", "tokenizer")  # a Hub id of one encoder has its tokenizer at its root
    if folder.is_dir():
        tokenizer_name = str(inside) if inside.is_dir() else name
    else:
        tokenizer_name = f"{name}/{part}" if is_pair(name, key) else name
    tokenizer = load_any_tokenizer(tokenizer_name, key)
    if len(tokenizer) > model.config.vocab_size:
        sizes = f"{len(tokenizer)} tokens and its encoder {model.config.vocab_size}"
        raise UserError(f"{key}: {name!r}: its tokenizer has {sizes}; they do not belong together")
    return TextEncoder(model.to(device).eval(), tokenizer, source=resolve_source(name, key))


def load_pair(
    source: str | Path, key: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TextEncoderPair:
    """Both text encoders of an SDXL student or pipeline, a folder or Hub id; else UserError."""
    first, second = (load_text_encoder(source, key, dtype, device, part) for part in ENCODER_PARTS)
    return TextEncoderPair(first.model, first.tokenizer, second)


def plug_into(pipeline: Any, source: str | Path) -> Any:  # noqa: ANN401  diffusers is untyped
    """Put the student of an exported folder or Hub id into a diffusers pipeline, in place, and return the pipeline.

    Its encoders, one or SDXL's two, take the precision, the device and the offloading of the pipeline's own. A pipeline
    of another number of encoders, one whose UNet reads states of another width, and one with a LoRA or a textual
    inversion in an encoder, which would be lost, raise UserError and stay as they were.
    """
    pair = getattr(pipeline, "text_encoder_2", None) is not None
    _check_pluggable(pipeline, "_2" if pair else "")
    if pair != is_pair(source, "plug_into"):
        raise UserError(
            f"plug_into: a {type(pipeline).__name__} has {2 if pair else 1} text encoders, {str(source)!r} "
            f"{1 if pair else 2}; take the student of this pipeline"
        )
    student = (load_pair if pair else load_text_encoder)(source, "plug_into", pipeline.dtype)
    expected = pipeline.unet.config.cross_attention_dim
    if student.hidden_size != expected:
        raise UserError(
            f"plug_into: the UNet reads states of width {expected}, the student's have {student.hidden_size}"
        )
    parts = {"": student, "_2": student.second} if isinstance(student, TextEncoderPair) else {"": student}
    for suffix, encoder in parts.items():
        encoder.tokenizer.__class__ = _SAVED_TOKENIZER_CLASS
        place = _placement(pipeline, f"text_encoder{suffix}")
        modules = {f"text_encoder{suffix}": encoder.model, f"tokenizer{suffix}": encoder.tokenizer}
        pipeline.register_modules(**modules)
        place(encoder.model)
    return pipeline


_SAVED_TOKENIZER_CLASS = type("PreTrainedTokenizerFast", (PreTrainedTokenizerFast,), {"__module__": "transformers"})
"""By this name a saved pipeline loads in every release; transformers 5 would write TokenizersBackend."""


def _check_pluggable(pipeline: Any, last: str) -> None:  # noqa: ANN401
    kind = type(pipeline).__name__
    if getattr(pipeline, "unet", None) is None or getattr(pipeline, "text_encoder_3", None) is not None:
        raise UserError(f"plug_into: a {kind} is not a pipeline of Stable Diffusion 1.x, 2.x or XL")
    for suffix in dict.fromkeys(("", last)):
        encoder, tokenizer = (getattr(pipeline, f"{name}{suffix}", None) for name in ("text_encoder", "tokenizer"))
        if encoder is None or tokenizer is None:
            raise UserError(f"plug_into: this {kind} has no text_encoder{suffix} with tokenizer (SDXL's refiner?)")
        if getattr(encoder, "peft_config", None):
            raise UserError(
                "plug_into: a LoRA is loaded; call pipeline.unload_lora_weights(), and load it after plug_into"
            )
        inversions = set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens)
        if inversions:
            raise UserError(f"plug_into: {min(inversions)} is loaded; load textual inversions after plug_into")
        if hasattr(encoder, "_diffusers_hook"):
            raise UserError("plug_into: group offloading is on; call plug_into first, then enable_group_offload")


def _placement(pipeline: Any, part: str) -> Callable[[nn.Module], object]:  # noqa: ANN401
    """What puts a new encoder where the pipeline's is now: on its device, or under the same hooks of accelerate."""
    own = getattr(pipeline, part)
    hooks = [module._hf_hook for module in own.modules() if hasattr(module, "_hf_hook")]
    if not hooks:
        own_device = own.device
        return lambda model: model.to(own_device)
    device = next(hook.execution_device for hook in hooks if getattr(hook, "execution_device", None) is not None)
    if any(isinstance(hook, accelerate.hooks.CpuOffload) for hook in hooks):
        return lambda model: pipeline.enable_model_cpu_offload(device=pipeline._offload_device)
    if any(getattr(hook, "offload", False) for hook in hooks):  # sequential; weights outside of submodules need buffers
        return lambda model: accelerate.cpu_offload(model, device, offload_buffers=len(model._parameters) > 0)
    return lambda model: accelerate.dispatch_model(model, device_map={"": device}, force_hooks=True)
