"""Text towers in their published sizes with random weights: for benchmarks and tests where no real ones are at hand."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

Shape = Literal["vit-b-32", "vit-l-14", "vit-h-14", "vit-bigg-14"]

_SIZES: dict[Shape, dict[str, Any]] = {
    "vit-b-32": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_act": "quick_gelu"},
    "vit-l-14": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
    "vit-h-14": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "gelu"},
    "vit-bigg-14": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"},
}


def random_teacher(shape: Shape, words: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a tower of `shape` with random weights of a fixed seed and the vocabulary of `words` to `folder`."""
    size = _SIZES[shape]
    width = size["hidden_size"]
    torch.manual_seed(0)
    config = CLIPTextConfig(
        **size, vocab_size=len(words), intermediate_size=4 * width, projection_dim=width, max_position_embeddings=77,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
