"""Checkpoints in one file, as Civitai has them, as teacher and as pipeline."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.cli import UserError
from distill.api import is_pair, load_pair, load_text_encoder
from distill.export.pipeline import check_pipeline_fit, resolve_pipeline
from distill.single_file import unpacked
from distill.text_tower import load_pretrained
from distill.train.pair import parse_runs
from distill.unet_geometry import load_scheduler
from eval.generation.pipeline import load_pipeline
from tests.distill.forked import two_processes
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
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, teachers: Path) -> Path:
    """A pipeline, with the same in one file beside it: `checkpoint.safetensors`."""
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
    save_file({name: weight.contiguous() for name, weight in checkpoint.items()}, folder / "checkpoint.safetensors")
    return folder / "own"


def file_of(own: Path, folder: Path) -> str:
    """The file of a pipeline in a folder of its own, with the pipeline for configurations and tokenizers."""
    copy = shutil.copy(own.with_name("checkpoint.safetensors"), folder)
    return f"{copy}@{own}"


def test_every_weight_of_the_file_is_the_pipelines(own: Path, tmp_path: Path) -> None:
    both = [load_pipeline(name, torch.device("cpu")) for name in (str(own), file_of(own, tmp_path))]
    for name in both[0].components:
        if isinstance(getattr(both[0], name), torch.nn.Module):
            weights, found = (getattr(pipeline, name).state_dict() for pipeline in both)
            assert weights.keys() == found.keys()
            assert all(torch.equal(weight, found[key]) for key, weight in weights.items()), name


def test_it_is_teacher_and_pipeline(own: Path, tmp_path: Path) -> None:
    name = file_of(own, tmp_path)
    pair = (own / "text_encoder_2").is_dir()
    load: Any = load_pair if pair else load_text_encoder
    assert is_pair(name, "x") is pair
    assert torch.equal(load(name, "x").states(["a cat"]), load(own, "x").states(["a cat"]))
    check_pipeline_fit([FIRST, SECOND] if pair else [24], resolve_pipeline(name))
    assert load_pretrained(f"{name}/text_encoder", "last").width == (FIRST if pair else 24)
    if pair:
        assert load_pretrained(f"{name}/text_encoder_2", "penultimate").width == SECOND


def test_a_run_names_the_folder(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run can be used from anywhere: what its configuration stores is absolute."""
    file_of(own, tmp_path)
    monkeypatch.chdir(tmp_path)
    stages = '{"l": {}, "g": {}}' if (own / "text_encoder_2").is_dir() else None
    options = ["--teacher", f"checkpoint.safetensors@{own}", "--data.corpus", "c", "--out_dir", "o"]
    runs = parse_runs([*options, *(["--stages", stages] if stages else [])])
    folder = tmp_path / "checkpoint.diffusers"
    expected = [folder / part for part in ("text_encoder", "text_encoder_2")] if stages else [folder]
    assert [run.teacher for run in runs] == [str(each) for each in expected]


def test_it_is_read_once_and_again_when_the_file_changes(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = file_of(own, tmp_path)
    folder = Path(unpacked(name, "--teacher"))
    first = (folder / "model_index.json").stat().st_ino
    monkeypatch.setattr("distill.single_file._write", None)  # would fail if it were read again
    assert unpacked(f"{name}/text_encoder", "--teacher") == str(folder / "text_encoder")
    monkeypatch.undo()
    os.utime(tmp_path / "checkpoint.safetensors")
    unpacked(name, "--teacher")
    second = (folder / "model_index.json").stat().st_ino
    assert second != first
    other = shutil.copytree(own, tmp_path / "other")
    unpacked(f"{tmp_path / 'checkpoint.safetensors'}@{other}", "--teacher")  # other configurations
    assert (folder / "model_index.json").stat().st_ino != second


def test_two_processes_read_it_once(own: Path, tmp_path: Path) -> None:
    name = file_of(own, tmp_path)
    written = two_processes(lambda _: Path(unpacked(name, "teacher"), "model_index.json").stat().st_ino, tmp_path)
    assert written[0] == written[1]


def test_half_precision_is_kept(own: Path, tmp_path: Path) -> None:
    name = file_of(own, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    save_file({key: weight.half() for key, weight in load_file(path).items()}, path)
    files = [*Path(unpacked(name, "--unet")).rglob("*.safetensors")]
    assert {weight.dtype for file in files for weight in load_file(file).values()} == {torch.float16}
    assert len(files) >= 3


def test_what_a_checkpoint_of_v_prediction_says(own: Path, tmp_path: Path) -> None:
    name = file_of(own, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    save_file(load_file(path) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, path)
    scheduler = load_scheduler(unpacked(name, "--unet"), 2)
    assert (scheduler.config.prediction_type, scheduler.config.rescale_betas_zero_snr) == ("v_prediction", True)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("missing.safetensors", None, r"no file .*missing\.safetensors"),
        ("old.ckpt", b"", "is a pickle, which may run code; take it in safetensors"),
        ("lora.safetensors", {"lora_te_x.alpha": torch.ones(1)}, "holds no text encoders of Stable Diffusion"),
        ("part.safetensors", {"cond_stage_model.x": torch.ones(1)}, r"diffusers cannot read .*; for configurations"),
        ("cut.safetensors", b"\x01", "diffusers cannot read .*header"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(
    file: str, content: bytes | dict[str, Tensor] | None, said: str, tmp_path: Path, teachers: Path
) -> None:
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    elif content:
        save_file(content, tmp_path / file)
    with pytest.raises(UserError, match=f"^--pipeline: {said}|^--pipeline: .*{said}"):
        resolve_pipeline(f"{tmp_path / file}@{teachers}")
    assert not (tmp_path / file).with_suffix(".diffusers").exists()
