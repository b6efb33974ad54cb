"""A random Stable Diffusion pipeline and students for it, small enough for a test."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.eval.tiny import tiny_tokenizer

WIDTH = 24


def write_encoder(folder: Path, width: int = WIDTH, seed: int = 0, slots: int = 77) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=slots, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = CLIPTextModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    model.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def read_more_of_the_text(unet: Any) -> Any:  # noqa: ANN401
    """The same random UNet, whose output depends lively on the text."""
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2" in name and weight.ndim > 1:
                weight.mul_(4)
    return unet


def tiny_autoencoder() -> Any:  # noqa: ANN401
    """Random, for pictures of 64 pixels."""
    kinds: Any = diffusers
    return kinds.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(0, 0, 0, 0), num_decoder_blocks=(0, 0, 0, 0),
    )  # fmt: skip


def write_pipeline(folder: Path) -> Path:
    """A random pipeline for 64-pixel pictures whose UNet depends lively on the text."""
    write_encoder(folder)
    torch.manual_seed(1)
    kinds: Any = diffusers
    unet = kinds.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=WIDTH,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    whole = kinds.StableDiffusionPipeline(
        vae=tiny_autoencoder(), unet=read_more_of_the_text(unet),
        scheduler=kinds.DDIMScheduler(prediction_type="v_prediction"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"), tokenizer=tiny_tokenizer(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    whole.save_pretrained(folder / "pipeline")
    return folder / "pipeline"
