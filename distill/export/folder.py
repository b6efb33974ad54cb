"""Writes a trained student as one folder that transformers and diffusers load as it stands.

At the root a CLIPTextModelWithProjection with its tokenizer; in `text_encoder/` and `tokenizer/` the parts of a Stable
Diffusion pipeline. The folder counts as written only after it has been loaded again and compared with the trained
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
from data.files import atomic_folder, check_out, read_json, write_json
from distill.loading import is_clip_bpe
from distill.text_tower import StateLayer

_EXPORT_MARKERS = ({"config.json", "text_encoder/config.json"}, {"config.json", "states.safetensors"})
"""Files by which an export is known, for no pipeline has all of them; the second set is of an `xlmr` student."""
PAIR_MARKERS = {"text_encoder/config.json", "text_encoder_2/config.json", "golden/prompts.json"}
"""Files by which the export of SDXL's two encoders is known."""
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
"""Prompts whose ids must be the same before and after."""
MIXED_SCRIPT_PROBE = "赛博朋克cyberpunk風格，一架helicopter"
"""One more for classes that take tokenizer.json as it stands: CLIP's own rules neither cut Chinese off nor fold 風."""
FAST_TOKENIZER_CLASS = "PreTrainedTokenizerFast"
"""The class that takes tokenizer.json as it stands, in every release of transformers."""
MODEL_CLASSES: dict[str, Any] = {".": CLIPTextModelWithProjection, "text_encoder": CLIPTextModel}
TOKENIZER_FOLDERS = (".", "tokenizer")
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

    `state_layer` names the states that the UNet reads: where it is those before the last layer through the final norm,
    as in Stable Diffusion 2, `text_encoder/` has one layer less, as the pipeline's own. A former export at `out` is
    replaced; any other folder there that is not empty raises UserError.
    """
    check_output_folder(out)
    config = checked_clip_config(model, tokenizer)
    with atomic_folder(out) as folder:
        write_folder(model, config, tokenizer, folder, state_layer)
        for writer in writers:
            writer(folder, model, tokenizer)
        verify_folder(folder, model, tokenizer)


def check_output_folder(out: Path) -> None:
    """Raise UserError where `out` is a file, or a folder of something else than an exported student."""
    check_out("--out", out, _is_export)


def _is_export(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in (*_EXPORT_MARKERS, PAIR_MARKERS))


def checked_clip_config(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> CLIPTextConfig:
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
    num_layers = config.num_hidden_layers - (state_layer == "penultimate_normed")
    root_only = ("text_projection.", f"text_model.encoder.layers.{num_layers}.")
    for name, model_class in MODEL_CLASSES.items():
        saved_config, tensors = copy.deepcopy(config), weights
        if name == "text_encoder":
            saved_config.num_hidden_layers = num_layers
            tensors = {key: weight for key, weight in weights.items() if not key.startswith(root_only)}
        write_model(tensors, saved_config, model_class, folder / name)
    for name in TOKENIZER_FOLDERS:
        write_tokenizer(tokenizer, folder / name, config.max_position_embeddings)


def write_model(tensors: dict[str, torch.Tensor], config: CLIPTextConfig, model_class: Any, folder: Path) -> None:  # noqa: ANN401
    """Weights and config of a model of `model_class`."""
    config.architectures = [model_class.__name__]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, max_length: int) -> None:
    """`tokenizer.json` and its config, and the vocab.json and merges.txt (or what its model has) for other programs."""
    saved_tokenizer = copy.deepcopy(tokenizer)
    saved_tokenizer.model_max_length = max_length  # diffusers pads every prompt to it
    saved_tokenizer.save_pretrained(folder)
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    if tokenizer_config["tokenizer_class"] == "TokenizersBackend":  # a name that transformers 4 does not know
        # transformers 4 would add token_type_ids, which a CLIP tower does not take.
        tokenizer_config |= {"tokenizer_class": FAST_TOKENIZER_CLASS, "model_input_names": tokenizer.model_input_names}
        write_json(tokenizer_config, folder / "tokenizer_config.json")
    saved_tokenizer.backend_tokenizer.model.save(str(folder))


def verify_folder(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Load what was written as a user would; any difference from the trained student raises RuntimeError."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # else a bar for each of the two loads
    for name, model_class in MODEL_CLASSES.items():
        verify_model(folder / name, model_class, model, tokenizer)
    for name in TOKENIZER_FOLDERS:
        verify_tokenizer(folder / name, tokenizer)
    if is_clip_bpe(tokenizer):
        clip_tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
        _verify_tokenizer(
            f"{folder}: the tokenizer of vocab.json and merges.txt", clip_tokenizer, tokenizer, TOKENIZER_PROBES
        )


def verify_model(
    folder: Path,
    model_class: Any,  # noqa: ANN401
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Load a model as a user would; any difference from the trained one raises RuntimeError."""
    loaded, info = model_class.from_pretrained(folder, output_loading_info=True)
    bad_keys = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if bad_keys:
        raise RuntimeError(
            f"{folder}: loads with {len(bad_keys)} missing, unexpected or misfitting weights, {bad_keys[0]} first"
        )
    if loaded.config.eos_token_id != tokenizer.eos_token_id:
        raise RuntimeError(f"{folder}: eos_token_id {loaded.config.eos_token_id}, not {tokenizer.eos_token_id}")
    _verify_weights(folder, model.state_dict(), loaded.state_dict())


def verify_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Load a tokenizer as a user would; any difference from the trained one raises RuntimeError."""
    probes = [*TOKENIZER_PROBES, MIXED_SCRIPT_PROBE]
    _verify_tokenizer(f"the tokenizer in {folder}", AutoTokenizer.from_pretrained(folder), tokenizer, probes)


def _verify_weights(folder: Path, trained: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor]) -> None:
    """Raise RuntimeError unless file and loaded model hold the trained tensors bit for bit."""
    stored = load_file(folder / "model.safetensors")
    for name, weight in stored.items():
        loaded_name = name if name in loaded else name.removeprefix("text_model.")
        if not torch.equal(weight, trained[name]) or not torch.equal(loaded[loaded_name], trained[name]):
            raise RuntimeError(f"{folder}: {name} differs from the trained weight")
    if len(stored) != len(loaded):
        raise RuntimeError(f"{folder}: {len(stored)} weights in the file, {len(loaded)} in the model")


def _verify_tokenizer(label: str, loaded: Any, trained: PreTrainedTokenizerFast, probes: Sequence[str]) -> None:  # noqa: ANN401
    """Raise RuntimeError unless `loaded` gives the trained ids, now and for every word."""
    same_ids = loaded(list(probes), verbose=False).input_ids == trained(list(probes), verbose=False).input_ids
    if not same_ids or _vocab_and_merges(loaded) != _vocab_and_merges(trained):
        raise RuntimeError(f"{label} differs from the trained one")


def _vocab_and_merges(tokenizer: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Vocabulary and merges (None where there are none) of a tokenizer, which decide the ids of every word."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return model["vocab"], model.get("merges")
