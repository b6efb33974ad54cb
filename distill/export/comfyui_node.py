"""A node for ComfyUI that loads a student: put this file into ComfyUI/custom_nodes/.

ComfyUI's own loaders hold 49,408 rows and their own tokenizer; this one takes both from the exported folder and leaves
the rest to ComfyUI's classes. It stands alone, so that the export can copy it: `single_file/` holds a copy.
"""

import functools
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class LoadYuqiaoStudent:
    """Exported folder in, CLIP out, for prompts of Stable Diffusion 1.x or 2.x."""

    CATEGORY = "loaders"
    FUNCTION = "load"
    RETURN_TYPES = ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  the name that ComfyUI calls
        """One line of text: the folder."""
        return {"required": {"folder": ("STRING", {"default": "models/text_encoders/student"})}}

    def load(self, folder: str) -> tuple[Any]:
        """The student as ComfyUI's CLIP; a folder without an export, or weights that do not fit, raise ValueError."""
        place = Path(folder)
        if not (place / "model.safetensors").is_file() or not (place / "tokenizer" / "tokenizer.json").is_file():
            raise ValueError(f"{folder}: no exported student there (model.safetensors and tokenizer/)")
        sd, utils = importlib.import_module("comfy.sd"), importlib.import_module("comfy.utils")
        weights = utils.load_torch_file(str(place / "model.safetensors"), safe_load=True)
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        if config["projection_dim"] != config["hidden_size"]:
            del weights["text_projection.weight"]  # ComfyUI's is square; Stable Diffusion does not read it
        target = SimpleNamespace(
            params={}, clip=functools.partial(_model, config), tokenizer=functools.partial(_tokenizer, place, config)
        )
        embeddings = importlib.import_module("folder_paths").get_folder_paths("embeddings")
        size = sum(weight.numel() for weight in weights.values())
        clip = sd.CLIP(target, embedding_directory=embeddings, parameters=size)
        _, unexpected = clip.load_sd(weights)
        if unexpected:
            raise ValueError(f"{folder}: ComfyUI has no place for {unexpected[0]}")
        return (clip,)


def _model(config: dict[str, Any], **given: Any) -> Any:  # noqa: ANN401  ComfyUI's arguments and class
    """ComfyUI's SD 1 encoder with as many rows as the student has tokens."""
    sd1_clip = importlib.import_module("comfy.sd1_clip")
    special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}

    def inner(**settings: Any) -> Any:  # noqa: ANN401
        made = sd1_clip.SDClipModel(
            textmodel_json_config=config, special_tokens=special, return_projected_pooled=False, **settings
        )
        embeddings = made.transformer.text_model.embeddings
        old = embeddings.token_embedding
        embeddings.token_embedding = type(old)(
            config["vocab_size"], config["hidden_size"], device=old.weight.device, dtype=old.weight.dtype
        ).requires_grad_(requires_grad=False)
        return made

    return sd1_clip.SD1ClipModel(clip_model=inner, **given)


def _tokenizer(folder: Path, config: dict[str, Any], **given: Any) -> Any:  # noqa: ANN401
    """ComfyUI's weights and chunks around the student's tokenizer."""
    sd1_clip = importlib.import_module("comfy.sd1_clip")
    fast = importlib.import_module("transformers").PreTrainedTokenizerFast  # CLIP's own would not read all of its rules
    own = functools.partial(
        sd1_clip.SDTokenizer, tokenizer_path=str(folder / "tokenizer"), tokenizer_class=fast,
        embedding_size=config["hidden_size"],
    )  # fmt: skip
    return sd1_clip.SD1Tokenizer(tokenizer=own, **given)


NODE_CLASS_MAPPINGS = {"LoadYuqiaoStudent": LoadYuqiaoStudent}
NODE_DISPLAY_NAME_MAPPINGS = {"LoadYuqiaoStudent": "Load Yuqiao student"}
