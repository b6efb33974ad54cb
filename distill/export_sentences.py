"""What makes the exported folder a sentence-transformers model as well: stock modules and no code of ours.

Transformer -> pooling, for CLIP the state at the last token, which is the end-of-text -> Dense -> normalise.
"""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

Pooling = Literal["cls_token", "lasttoken", "mean_tokens"]

# The names of the classes up to release 5; release 6 knows them still and moves them itself.
MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Dense", "sentence_transformers.models.Dense"),
    ("3_Normalize", "sentence_transformers.models.Normalize"),
)


def write_sentence_modules(
    folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write modules.json and its modules into `folder`, whose root holds the transformers model."""
    write_modules(folder, model.text_projection.weight, "lasttoken", tokenizer.model_max_length)


def write_modules(folder: Path, projection: torch.Tensor, pooling: Pooling, slots: int) -> None:
    """The same for a model pooled in this way, whose pooled state is multiplied by `projection` [dim, width]."""
    dim, width = projection.shape
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(MODULES)]
    _write(folder / "modules.json", listed)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": slots, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "lasttoken", "mean_tokens")}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    _write(
        folder / "2_Dense" / "config.json",
        {"in_features": width, "out_features": dim, "bias": False,
         "activation_function": "torch.nn.modules.linear.Identity"},
    )  # fmt: skip
    save_file({"linear.weight": projection.detach().contiguous().clone()}, folder / "2_Dense" / "model.safetensors")
    (folder / "3_Normalize").mkdir()


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
