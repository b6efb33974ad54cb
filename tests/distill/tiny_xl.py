"""A tiny SDXL: two text encoders of different widths, a UNet that reads both, as one pipeline folder."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.distill.tiny_clip import teacher_tokenizer
from tests.eval.random_pipeline import read_more_of_the_text, tiny_autoencoder

FIRST, SECOND = 16, 24  # widths of the states; the second has as wide a projection


def _config(width: int, pad_id: int, vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=width, bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1, pad_token_id=pad_id,
    )  # fmt: skip


def write_xl(folder: Path, seed: int = 0) -> Path:
    """A StableDiffusionXLPipeline of random weights whose UNet depends lively on the text."""
    torch.manual_seed(seed)
    kinds: Any = diffusers
    tokenizer = teacher_tokenizer()
    tokenizer.save_pretrained(folder / "plain")
    tokenizer_2 = CLIPTokenizer.from_pretrained(folder / "plain", pad_token="!")
    size = len(tokenizer)
    first = CLIPTextModel(_config(FIRST, size - 1, size))
    second = CLIPTextModelWithProjection(_config(SECOND, 0, size))
    unet = kinds.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=FIRST + SECOND, attention_head_dim=2, addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=SECOND + 24,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with torch.no_grad():
        for model in (first, second):
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.3)
    whole = kinds.StableDiffusionXLPipeline(
        vae=tiny_autoencoder(), unet=read_more_of_the_text(unet),
        scheduler=kinds.DDIMScheduler(prediction_type="v_prediction"), text_encoder=first,
        text_encoder_2=second, tokenizer=tokenizer, tokenizer_2=tokenizer_2, add_watermarker=False,
    )  # fmt: skip
    whole.save_pretrained(folder / "xl")
    return folder / "xl"
