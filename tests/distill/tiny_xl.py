"""A tiny SDXL: two text encoders of different widths, a UNet that reads both, as one pipeline folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.distill.tiny_clip import teacher_tokenizer
from tests.eval.random_pipeline import read_more_of_the_text, tiny_autoencoder

FIRST, SECOND = 16, 24  # widths of the states; the second has as wide a projection


@dataclass(frozen=True)
class Size:
    """The size of a text encoder, and the standard deviation of its random weights."""

    width: int
    layers: int = 3
    heads: int = 2
    hidden_act: str = "quick_gelu"
    mlp: int = 2
    """Width of the feed-forward blocks in widths of the states."""
    std: float = 0.3


TINY = Size(FIRST), Size(SECOND)
SDXL = Size(768, 12, 12, mlp=4, std=0.02), Size(1280, 32, 20, "gelu", mlp=4, std=0.02)
"""The sizes of SDXL's own two encoders."""


def _config(size: Size, pad_id: int, vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=size.width, intermediate_size=size.mlp * size.width,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, hidden_act=size.hidden_act,
        max_position_embeddings=77, projection_dim=size.width, bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1, pad_token_id=pad_id,
    )  # fmt: skip


def write_xl(folder: Path, seed: int = 0, sizes: tuple[Size, Size] = TINY) -> Path:
    """A StableDiffusionXLPipeline of random weights, its UNet tiny, which depends lively on the text."""
    torch.manual_seed(seed)
    kinds: Any = diffusers
    tokenizer = teacher_tokenizer()
    tokenizer.save_pretrained(folder / "plain")
    tokenizer_2 = CLIPTokenizer.from_pretrained(folder / "plain", pad_token="!")
    vocabulary = len(tokenizer)
    first = CLIPTextModel(_config(sizes[0], vocabulary - 1, vocabulary))
    second = CLIPTextModelWithProjection(_config(sizes[1], 0, vocabulary))
    unet = kinds.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=sizes[0].width + sizes[1].width, attention_head_dim=2, addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=sizes[1].width + 24,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with torch.no_grad():
        for model, size in zip((first, second), sizes, strict=True):
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=size.std)
    whole = kinds.StableDiffusionXLPipeline(
        vae=tiny_autoencoder(), unet=read_more_of_the_text(unet),
        scheduler=kinds.DDIMScheduler(prediction_type="v_prediction"), text_encoder=first,
        text_encoder_2=second, tokenizer=tokenizer, tokenizer_2=tokenizer_2, add_watermarker=False,
    )  # fmt: skip
    whole.save_pretrained(folder / "xl")
    return folder / "xl"
