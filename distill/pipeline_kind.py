"""Which pipelines a student can serve: those of Stable Diffusion 1.x and 2.x, known by their small files."""

from collections.abc import Mapping
from typing import Any

from data.command import UserError

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
