"""Write a trained student as one folder that transformers and diffusers load as it stands.

At the root a CLIPTextModelWithProjection with its tokenizer; in `text_encoder/` and `tokenizer/` what a Stable
Diffusion pipeline takes. The folder counts as written only after it has been loaded again and compared with the trained
weights.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from data.cli import UserError
from data.files import atomic_folder, read_json
from distill.text_tower import StateLayer, is_clip_bpe

_EXPORT_MARKERS = ("text_encoder/config.json", "states.safetensors")
"""Of an export beside its config.json, which a pipeline has not; the second is of an `xlmr` student."""
TOKENIZER_PROBES = (
    "",
    "a photo of a cat",
    "机械狗",
    "戴帽子拿剑的猫",
    "梵高星空",
    "阿拉斯加千年不化的雪山 一架红色直升机正在起飞",
    "a 红色的 helicopter，cyberpunk 风格，8k（高清）",
    "Café ☕ naïve 😀 3.14 Ünïcödé",
    "龘 霸王别姬 “引号”、《书名》" * 20,
)
"""Prompts on which the tokenizer must be the same before and after."""
MIXED_SCRIPT_PROBE = "赛博朋克cyberpunk風格，一架helicopter"
"""The same for what takes tokenizer.json as it stands: CLIP's own rules do not cut Chinese from English, or read 風."""
FAST_TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""The class that takes tokenizer.json as it stands, in every release of transformers."""
Writer = Callable[[Path, CLIPTextModelWithProjection, PreTrainedTokenizerFast], None]
"""Writes one more form of the student into its folder: (folder, model, tokenizer)."""


def export(
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    writers: Sequence[Writer] = (),
    state_layer: StateLayer = "last",
) -> None:
    """Write the student to the folder `out`, whole or not at all; a student that would load wrongly raises UserError.

    `states` says which of them the UNet reads: where it is those before the last layer through the final norm, as in
    Stable Diffusion 2, `text_encoder/` has one layer less, as the pipeline's own.
    A former export at `out` is replaced; any other folder there that is not empty is refused.
    """
    check_output_folder(out)
    config = checked_config(model, tokenizer)
    with atomic_folder(out) as folder:
        write_folder(model, config, tokenizer, folder, state_layer)
        for writer in writers:
            writer(folder, model, tokenizer)
        verify_folder(folder, model, tokenizer)


def check_output_folder(out: Path) -> None:
    """Raise UserError where `out` is a file, or a folder of something else than an exported student."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file; name a folder")
    is_export = (out / "config.json").is_file() and any((out / mark).is_file() for mark in _EXPORT_MARKERS)
    if out.is_dir() and any(out.iterdir()) and not is_export:
        raise UserError(f"--out {out}: a folder with other things in it; name a new one")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: no folder {out.parent}; make it first")


def checked_config(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> CLIPTextConfig:
    """The model's config with the token ids written out, or UserError where pooling would go wrong.

    Pooling reads `eos_token_id`: None crashes, and 2 is read as "the largest id", which new tokens above the
    end-of-text have broken. It must be the tokenizer's own.
    """
    config = copy.deepcopy(model.config)
    if tokenizer.eos_token_id == 2:
        raise UserError("the tokenizer's end-of-text has id 2, which transformers reads as 'pool at the largest id'")
    if len(tokenizer) > config.vocab_size:
        raise UserError(f"the tokenizer has {len(tokenizer)} tokens, the model rows for {config.vocab_size}")
    nonfinite = [name for name, weight in model.state_dict().items() if not torch.isfinite(weight).all()]
    if nonfinite:
        raise UserError(f"{nonfinite[0]} holds numbers that are not finite; choose an earlier checkpoint with --step")
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.dtype = model.dtype
    return config


def write_folder(
    model: CLIPTextModelWithProjection,
    config: CLIPTextConfig,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    state_layer: StateLayer = "last",
) -> None:
    """Weights, config and tokenizer, twice: with projection at the root, without in `text_encoder/`.

    Both weight files carry the prefix `text_model.`, as published Stable Diffusion folders do; transformers 5 would
    write `text_encoder/` without, which earlier releases and other programs do not read.
    """
    weights = {name: weight.detach().contiguous().clone() for name, weight in model.state_dict().items()}
    layers = config.num_hidden_layers - (state_layer == "penultimate_normed")
    dropped_prefixes = ("text_projection.", f"text_model.encoder.layers.{layers}.")
    without_projection = {name: weight for name, weight in weights.items() if not name.startswith(dropped_prefixes)}
    for subfolder, tensors, model_class, num_layers in (
        (folder, weights, CLIPTextModelWithProjection, config.num_hidden_layers),
        (folder / "text_encoder", without_projection, CLIPTextModel, layers),
    ):
        subfolder.mkdir(parents=True)
        save_file(tensors, subfolder / "model.safetensors", {"format": "pt"})
        saved_config = copy.deepcopy(config)
        saved_config.architectures, saved_config.num_hidden_layers = [model_class.__name__], num_layers
        saved_config.save_pretrained(subfolder)
    for subfolder in (folder, folder / "tokenizer"):
        write_tokenizer(tokenizer, subfolder, config.max_position_embeddings)


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int) -> None:
    """`tokenizer.json` and its config, and the vocab.json and merges.txt (or what its model has) for other programs."""
    saved_tokenizer = copy.deepcopy(tokenizer)
    saved_tokenizer.model_max_length = max_length  # diffusers pads every prompt to it
    saved_tokenizer.save_pretrained(folder)
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    if tokenizer_config["tokenizer_class"] == "TokenizersBackend":  # what only transformers 5 knows by this name
        # transformers 4 would add token_type_ids, which a CLIP tower does not take.
        tokenizer_config |= {"tokenizer_class": FAST_TOKENIZER_CLASS, "model_input_names": tokenizer.model_input_names}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n", encoding="utf-8")
    saved_tokenizer.backend_tokenizer.model.save(str(folder))


def verify_folder(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Load what was written as a user would; any difference from the trained student raises RuntimeError."""
    trained = model.state_dict()
    disable_progress_bar()  # type: ignore[no-untyped-call]  # else a bar for each of the two loads
    model_classes: dict[Path, Any] = {folder: CLIPTextModelWithProjection, folder / "text_encoder": CLIPTextModel}
    for subfolder, model_class in model_classes.items():
        loaded, loading_info = model_class.from_pretrained(subfolder, output_loading_info=True)
        bad_keys = [*loading_info["missing_keys"], *loading_info["unexpected_keys"], *loading_info["mismatched_keys"]]
        if bad_keys:
            raise RuntimeError(f"{subfolder}: loads with {len(bad_keys)} keys amiss, {bad_keys[0]} first")
        check_weights(subfolder, trained, loaded.state_dict())
        if loaded.config.eos_token_id != tokenizer.eos_token_id:
            raise RuntimeError(f"{subfolder}: eos_token_id {loaded.config.eos_token_id}, not {tokenizer.eos_token_id}")
    tokenizer_folders: dict[str, Any] = {"the root": folder, "tokenizer/": folder / "tokenizer"}
    candidates: list[tuple[str, Any, list[str]]] = [
        (name, AutoTokenizer.from_pretrained(place), [*TOKENIZER_PROBES, MIXED_SCRIPT_PROBE])
        for name, place in tokenizer_folders.items()
    ]
    if is_clip_bpe(tokenizer):
        clip_tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
        candidates.append(("vocab.json and merges.txt", clip_tokenizer, list(TOKENIZER_PROBES)))
    for name, reloaded, probes in candidates:
        same = reloaded(probes, verbose=False).input_ids == tokenizer(probes, verbose=False).input_ids
        if not same or vocab_and_merges(reloaded) != vocab_and_merges(tokenizer):
            raise RuntimeError(f"{folder}: the tokenizer of {name} differs from the trained one")


def vocab_and_merges(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    """Vocabulary and merges (None where there are none) of a tokenizer, which decide the ids of every word."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return model["vocab"], model.get("merges")


def check_weights(folder: Path, trained: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor]) -> None:
    """Raise RuntimeError unless file and loaded model hold the trained tensors bit for bit."""
    stored = load_file(folder / "model.safetensors")
    for name, weight in stored.items():
        loaded_name = name if name in loaded else name.removeprefix("text_model.")
        if not torch.equal(weight, trained[name]) or not torch.equal(loaded[loaded_name], trained[name]):
            raise RuntimeError(f"{folder}: {name} differs from the trained weight")
    if len(stored) != len(loaded):
        raise RuntimeError(f"{folder}: {len(stored)} weights in the file, {len(loaded)} in the model")
