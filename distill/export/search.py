"""The student for programs that search pictures: a page for browsers, Immich's text half, open_clip's CLIP.

The image tower is the teacher's, untouched, so an index of pictures that such a program has made stays as it is.
"""

import base64
import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import normalizers
from transformers import CLIPModel, CLIPTextModelWithProjection, PretrainedConfig, PreTrainedTokenizerFast

from data.cli import UserError, one_line
from data.files import read_json, write_json
from distill.export.folder import Writer, write_tokenizer
from distill.export.formats import GOLDEN_PROMPTS
from distill.export.onnx import TOLERANCE, export_module, write_onnx
from distill.loading import channel_statistics, load_pretrained_model
from distill.text_tower import padded_ids

LAYER_NAMES = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}
"""Of a layer: the part of a name in transformers -> in open_clip, which has query, key and value in one matrix."""


class NormalisedFeatures(torch.nn.Module):
    """Ids [batch, length], int32, to features [batch, dim] of length 1, as Immich's own exports are."""

    def __init__(self, model: CLIPTextModelWithProjection) -> None:
        """Share the weights of `model`."""
        super().__init__()
        self.model = model

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Features for search."""
        features: torch.Tensor = self.model(input_ids=text).text_embeds
        return F.normalize(features, dim=-1)


def write_immich(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `immich/textual/` into `folder`, run it and compare; further than TOLERANCE away raises RuntimeError."""
    textual, max_length = folder / "immich" / "textual", int(model.config.max_position_embeddings)
    textual.mkdir(parents=True)
    export_module(NormalisedFeatures(model), torch.int32, max_length, "text", ["text_features"], textual / "model.onnx")
    write_tokenizer(tokenizer, textual, max_length)
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(textual / "model.onnx"), providers=["CPUExecutionProvider"])
    ids = padded_ids(tokenizer, GOLDEN_PROMPTS, max_length).to(torch.int32)
    found = np.concatenate([session.run(None, {"text": row[None]})[0] for row in ids.numpy()])
    with torch.inference_mode():
        error = float(np.abs(found - NormalisedFeatures(model)(ids).numpy()).max())
    if error > TOLERANCE:
        raise RuntimeError(f"{textual}: differs from the trained model by {error:.2e}, over {TOLERANCE}")


def open_clip_writer(teacher: str) -> Writer:
    """The writer of `open_clip/`, with the image tower of the teacher; UserError where that is no whole CLIPModel."""
    try:
        kind = PretrainedConfig.get_config_dict(teacher)[0].get("model_type")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--parts open_clip: no readable config.json in teacher {teacher!r} ({one_line(error)})"
        ) from error
    if kind != "clip":
        raise UserError(
            f"--parts open_clip: the teacher {teacher!r} has no image tower, which open_clip needs; leave it out"
        )

    def write_open_clip(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
        clip = load_pretrained_model(CLIPModel, teacher, "teacher", "CLIP model")
        out = folder / "open_clip"
        out.mkdir()
        save_file(open_clip_weights(clip, model), out / "open_clip_model.safetensors", {"format": "pt"})
        mean, std = channel_statistics(teacher)
        pixels = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
        config = {"model_cfg": _model_config(clip, model, tokenizer), "preprocess_cfg": pixels}
        write_json(config, out / "open_clip_config.json")
        write_tokenizer(tokenizer, out, model.config.max_position_embeddings)

    return write_open_clip


def open_clip_weights(clip: CLIPModel, text: CLIPTextModelWithProjection) -> dict[str, torch.Tensor]:
    """The image tower of `clip` and the text tower `text` under open_clip's names."""
    theirs, ours = clip.state_dict(), text.state_dict()
    vision = "vision_model.embeddings."
    weights = {
        "logit_scale": theirs["logit_scale"],
        "visual.class_embedding": theirs[vision + "class_embedding"],
        "visual.positional_embedding": theirs[vision + "position_embedding.weight"],
        "visual.conv1.weight": theirs[vision + "patch_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "token_embedding.weight": ours["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": ours["text_model.embeddings.position_embedding.weight"],
        "text_projection": ours["text_projection.weight"].T,
    }
    for end in ("weight", "bias"):
        weights[f"visual.ln_pre.{end}"] = theirs[f"vision_model.pre_layrnorm.{end}"]  # so spelled by transformers
        weights[f"visual.ln_post.{end}"] = theirs[f"vision_model.post_layernorm.{end}"]
        weights[f"ln_final.{end}"] = ours[f"text_model.final_layer_norm.{end}"]
    weights |= _layers(theirs, "vision_model.encoder.layers.", "visual.transformer.resblocks.")
    weights |= _layers(ours, "text_model.encoder.layers.", "transformer.resblocks.")
    return {name: weight.detach().contiguous().clone() for name, weight in weights.items()}


def _layers(state: Mapping[str, torch.Tensor], prefix: str, target: str) -> dict[str, torch.Tensor]:
    renamed = {}
    for key in (key for key in state if key.startswith(prefix)):
        number, _, rest = key.removeprefix(prefix).partition(".")
        for old, new in LAYER_NAMES.items():
            if rest.startswith(old):
                renamed[f"{target}{number}.{new}{rest.removeprefix(old)}"] = state[key]
        if rest.startswith("self_attn.q_proj."):
            end = rest.rpartition(".")[2]
            parts = [state[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            renamed[f"{target}{number}.attn.in_proj_{end}"] = torch.cat(parts)
    return renamed


def _model_config(
    clip: CLIPModel, text: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Of open_clip; its own pooling takes the largest id, above which a student has Chinese."""
    vision: Any = clip.config.vision_config
    words = text.config
    activations = {vision.hidden_act, words.hidden_act}
    if not activations <= {"gelu", "quick_gelu"} or len(activations) > 1:
        raise UserError(
            f"--parts open_clip: no activation {' and '.join(sorted(activations))} in open_clip; leave it out"
        )
    return {
        "embed_dim": words.projection_dim,
        "quick_gelu": words.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        "text_cfg": {
            "context_length": words.max_position_embeddings,
            "vocab_size": words.vocab_size,
            "width": words.hidden_size,
            "heads": words.num_attention_heads,
            "layers": words.num_hidden_layers,
            "mlp_ratio": words.intermediate_size / words.hidden_size,
            "hf_tokenizer_name": "here",  # any name: of a local folder, its own tokenizer is read
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }


PAGE = Path(__file__).with_name("web") / "index.html"
MODEL = Path("onnx") / "model_int8.onnx"


def write_web(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `web/` into `folder`: page, int8 model, config, and the tokenizer as JavaScript reads it; and `onnx/`."""
    if not (folder / MODEL).is_file():
        write_onnx(folder, model, tokenizer)
    web = folder / "web"
    (web / MODEL).parent.mkdir(parents=True)
    shutil.copyfile(folder / MODEL, web / MODEL)
    shutil.copyfile(PAGE, web / "index.html")
    shutil.copyfile(folder / "config.json", web / "config.json")
    write_tokenizer(tokenizer, web, model.config.max_position_embeddings)
    for name in ("vocab.json", "merges.txt"):  # read by no JavaScript
        (web / name).unlink(missing_ok=True)
    rules = javascript_rules(read_json(web / "tokenizer.json"))
    (web / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False), encoding="utf-8")


def javascript_rules(rules: dict[str, Any]) -> dict[str, Any]:
    """`rules`, a tokenizer.json, so that the JavaScript libraries give the same ids; theirs is the normalizer alone.

    They read every compiled table as NFKC, so the characters of a table are replaced one by one: 0.5 ms a prompt. And
    their lower case of a capital sigma depends on its place in the word.
    """
    steps: list[dict[str, Any]] = []
    for step in _steps(rules["normalizer"]):
        if step["type"] == "Precompiled":
            steps += [_replace(old, new) for old, new in _table(step).items()]
        else:
            steps += [_replace("Σ", "σ")] if step["type"] == "Lowercase" else []
            steps.append(step)
    return {**rules, "normalizer": {"type": "Sequence", "normalizers": steps}}


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None or normalizer["type"] != "Sequence":
        return [normalizer] if normalizer else []
    return [step for part in normalizer["normalizers"] for step in _steps(part)]


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _table(precompiled: dict[str, Any]) -> dict[str, str]:
    """What the compiled table makes of each character that it changes."""
    step = normalizers.Precompiled(base64.b64decode(precompiled["precompiled_charsmap"]))
    characters = [chr(point) for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000]
    # Line ends between them, so that none is read together with the next.
    read = step.normalize_str("\n".join(characters)).split("\n")
    return {old: new for old, new in zip(characters, read, strict=True) if old != new}
