"""Checkpoints in one file, as Civitai has them: a folder by diffusers' own reading, then teacher and pipeline."""

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from data.cli import UserError
from distill.api import load_pair, load_text_encoder
from distill.export.pipeline import check_pipeline_fit, resolve_pipeline
from distill.text_tower import load_pretrained
from eval.generation.pipeline import load_pipeline
from tests.distill.tiny_xl import FIRST, SECOND, write_xl

UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2", "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1", "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1", "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
}  # fmt: skip
"""Modules of the tests' UNet in Stable Diffusion's own files, and what is inside a residual block."""
RESIDUAL = {
    ".norm1.": ".in_layers.0.", ".conv1.": ".in_layers.2.", ".time_emb_proj.": ".emb_layers.1.",
    ".norm2.": ".out_layers.0.", ".conv2.": ".out_layers.3.", ".conv_shortcut.": ".skip_connection.",
}  # fmt: skip
VAE = {
    r"down_blocks\.0\.resnets": "down.0.block", r"up_blocks\.0\.resnets": "up.0.block",
    r"mid_block\.resnets\.0": "mid.block_1", r"mid_block\.resnets\.1": "mid.block_2",
    r"mid_block\.attentions\.0": "mid.attn_1", r"conv_norm_out": "norm_out", r"conv_shortcut": "nin_shortcut",
    r"attn_1\.group_norm": "attn_1.norm", r"to_([qkv])\.": r"\1.", r"to_out\.0": "proj_out",
}  # fmt: skip
OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj", "final_layer_norm": "ln_final", "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding", "encoder.layers": "transformer.resblocks",
}  # fmt: skip


def original_unet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        module = next(module for module in UNET if name.startswith(f"{module}."))
        inner = name.removeprefix(module)
        if ".resnets." in module:
            inner = next(inner.replace(own, theirs) for own, theirs in RESIDUAL.items() if inner.startswith(own))
        renamed[f"model.diffusion_model.{UNET[module]}{inner}"] = weight
    return renamed


def original_vae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        theirs = name
        for own, other in VAE.items():
            theirs = re.sub(own, other, theirs)
        is_map = "attentions" in name and weight.ndim == 2  # theirs are convolutions over single pixels
        renamed[f"first_stage_model.{theirs}"] = weight[:, :, None, None] if is_map else weight
    return renamed


def original_clip(model: Any, prefix: str) -> dict[str, Tensor]:  # noqa: ANN401
    weights = model.state_dict()
    return {f"{prefix}.transformer.text_model.{name.removeprefix('text_model.')}": w for name, w in weights.items()}


def original_open_clip(model: Any, prefix: str) -> dict[str, Tensor]:  # noqa: ANN401
    weights = {name.removeprefix("text_model."): weight for name, weight in model.state_dict().items()}
    renamed = {f"{prefix}.model.text_projection": weights.pop("text_projection.weight").T}
    for name in list(weights):
        if ".q_proj." in name:
            joint = torch.cat([weights.pop(name.replace("q_proj", f"{x}_proj")) for x in "qkv"])
            weights[name.replace("self_attn.q_proj.", "attn.in_proj_")] = joint
    for name, weight in weights.items():
        theirs = name
        for own, other in OPEN_CLIP.items():
            theirs = theirs.replace(own, other)
        renamed[f"{prefix}.model.{theirs}"] = weight
    return renamed


@pytest.fixture(scope="module", params=[1, 2], ids=["1.x", "XL"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, teachers: Path) -> list[Path]:
    """A pipeline, the same in one file, and what docs/use.md makes of the file."""
    kinds: Any = diffusers
    folder = tmp_path_factory.mktemp("file")
    xl = request.param == 2
    kind = kinds.StableDiffusionXLPipeline if xl else kinds.StableDiffusionPipeline
    settings: dict[str, Any] = {"add_watermarker": False} if xl else {"safety_checker": None}
    whole = kind.from_pretrained(write_xl(folder) if xl else teachers, **settings)
    whole.vae = kinds.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16)
    whole.register_modules(vae=whole.vae)
    whole.save_pretrained(folder / "own")
    first = "conditioner.embedders.0" if xl else "cond_stage_model"
    checkpoint = original_unet(whole.unet.state_dict()) | original_vae(whole.vae.state_dict())
    checkpoint |= original_clip(whole.text_encoder, first)
    if xl:
        checkpoint |= original_open_clip(whole.text_encoder_2, "conditioner.embedders.1")
    file = folder / "checkpoint.safetensors"
    save_file({name: weight.contiguous() for name, weight in checkpoint.items()}, file)
    loaded = kind.from_single_file(str(file), config=str(folder / "own"), local_files_only=True)
    loaded.save_pretrained(folder / "folder")
    return [folder / "own", file, folder / "folder"]


def test_every_weight_of_the_file_is_the_pipelines(folders: list[Path]) -> None:
    own, made = (load_pipeline(str(folder), torch.device("cpu")) for folder in (folders[0], folders[2]))
    for name in own.components:
        if isinstance(getattr(own, name), torch.nn.Module):
            weights, found = getattr(own, name).state_dict(), getattr(made, name).state_dict()
            assert weights.keys() == found.keys()
            assert all(torch.equal(weight, found[key]) for key, weight in weights.items()), name


def test_it_is_teacher_and_pipeline(folders: list[Path]) -> None:
    own, _, made = folders
    widths = [FIRST, SECOND] if (made / "text_encoder_2").is_dir() else [24]
    check_pipeline_fit(widths, resolve_pipeline(str(made)))
    if len(widths) == 2:
        assert torch.equal(load_pair(own, "x").states(["a cat"]), load_pair(made, "x").states(["a cat"]))
        assert load_pretrained(str(made / "text_encoder_2"), "penultimate").width == SECOND
    else:
        states = [load_text_encoder(folder, "x").states(["a cat"]) for folder in (own, made)]
        assert torch.equal(*states)


def test_the_file_itself_is_refused_with_the_way(folders: list[Path]) -> None:
    file = folders[1]
    said = r"checkpoint in one file; docs/use\.md shows how it becomes a folder"
    for take in (
        lambda: load_pretrained(str(file), "last"),
        lambda: resolve_pipeline(str(file)),
        lambda: load_pipeline(str(file), torch.device("cpu")),
    ):
        with pytest.raises(UserError, match=said):
            take()
