"""A UNet's geometry against what the UNet itself computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file

from data.cli import UserError
from distill.geometry import GEOMETRY_PROMPTS, attend, kv_quadratic_form, read_geometry, share_between, single_prompts
from distill.train.config import parse_config
from distill.train.setup import validate_losses
from distill.unet_geometry import (
    collect_geometry,
    cross_attentions,
    encoder_kind,
    load_scheduler,
    main,
    metric_of_columns,
)
from tests.distill.tiny_clip import run_options, write_config

WIDTH = 32  # the tiny teacher's


def _unet(width: int = WIDTH) -> Any:  # noqa: ANN401  # diffusers has no types
    torch.manual_seed(0)
    kind: Any = UNet2DConditionModel
    return kind(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=(2, 4),
    ).eval()


@pytest.fixture(scope="module")
def written(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("unet")
    unet = _unet()
    unet.save_pretrained(folder / "unet")
    main(["--unet", str(folder / "unet"), "--teacher", str(teacher), "--out", str(folder / "g.safetensors"),
          "--queries", "5", "--steps", "3"])  # fmt: skip
    return unet, folder / "g.safetensors"


def test_metric_by_hand() -> None:
    """W = (1, 2) and 3 (0, 1): [[1, 2], [2, 4]] / 5 and [[0, 0], [0, 1]], their mean times the width 2."""
    got = kv_quadratic_form([torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0]])])
    torch.testing.assert_close(got, torch.tensor([[0.2, 0.4], [0.4, 1.8]]))
    assert kv_quadratic_form([torch.eye(3) * 7]).equal(torch.eye(3))


def test_the_metric_is_the_error_of_all_keys_and_values(written: tuple[Any, Path]) -> None:
    unet, path = written
    found = read_geometry(path, torch.device("cpu"))
    apart = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    parts = [
        (linear(apart).square().sum() / linear.weight.square().sum()).item()
        for module in cross_attentions(unet).values()
        for linear in (module.to_k, module.to_v)
    ]
    assert len(parts) == 2 * len(found.layers) == 8
    assert (apart @ found.metric @ apart).item() == pytest.approx(WIDTH * sum(parts) / len(parts), rel=1e-4)
    assert found.metric.trace().item() == pytest.approx(WIDTH, rel=1e-5)


@torch.no_grad()
def test_reading_is_the_unets_own_attention(written: tuple[Any, Path], teacher: Path) -> None:
    """Our read-out, through to_out, is what diffusers' attention gives for the input that makes that query."""
    unet, path = written
    found = read_geometry(path, torch.device("cpu"))
    states = single_prompts(str(teacher)).states
    for layer in found.layers:
        module = cross_attentions(unet)[layer.name]
        pixels = torch.randn(1, 6, module.to_q.in_features, generator=torch.Generator().manual_seed(2))
        wanted = module(pixels, encoder_hidden_states=states[1:2])
        asked = type(layer)(layer.name, layer.heads, layer.scale, module.to_q(pixels)[0], layer.key, layer.value)
        got = module.to_out[0](attend(asked, states[1:2]).transpose(1, 2).flatten(2))
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_queries_are_those_of_guided_denoising(written: tuple[Any, Path], teacher: Path) -> None:
    """Each stored query is one that the first cross-attention asks while DDIM denoises the prompts one by one."""
    unet, path = written
    found = read_geometry(path, torch.device("cpu"))
    states, random, asked = single_prompts(str(teacher)).states, torch.Generator().manual_seed(0), []
    first = cross_attentions(unet)[found.layers[0].name]
    hook = first.to_q.register_forward_hook(lambda _m, _i, query: asked.append(query.flatten(0, 1)))
    kind: Any = DDIMScheduler
    scheduler = kind(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(3)
    with torch.no_grad():
        for row in states[1:]:
            latent = torch.randn(1, 4, 8, 8, generator=random)
            for timestep in scheduler.timesteps:
                noise = unet(latent.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=torch.stack([states[0], row]))
                empty, prompt = noise.sample
                latent = scheduler.step((empty + 7.5 * (prompt - empty))[None], timestep, latent).prev_sample
    hook.remove()
    everything = torch.cat(asked)
    assert len(everything) == 3 * (len(GEOMETRY_PROMPTS) - 1) * 2 * 64
    assert found.layers[0].query.shape == (5, 8)
    for query in found.layers[0].query:
        assert (everything - query).abs().sum(dim=1).min() < 1e-4
    again = collect_geometry(unet, single_prompts(str(teacher)), scheduler, 7.5, 5, seed=0)
    torch.testing.assert_close(again.layers[2].query, found.layers[2].query, atol=1e-6, rtol=1e-5)
    other = collect_geometry(unet, single_prompts(str(teacher)), scheduler, 7.5, 5, seed=1).layers[2].query
    assert not torch.allclose(other, found.layers[2].query, atol=1e-3)


def test_the_share_between_prompts(written: tuple[Any, Path], teacher: Path) -> None:
    """By hand: 1 and 3 have the mean 2, the variance 2 and the mean square 5; of a file, its teacher's prompts."""
    assert share_between(torch.tensor([[1.0], [3.0]])) == pytest.approx(2 / 5)
    found = read_geometry(written[1], torch.device("cpu"))
    states = single_prompts(str(teacher)).states
    shares = [share_between(attend(layer, states)) for layer in found.layers]
    assert found.shares.tolist() == pytest.approx(shares, rel=1e-4)
    assert 0 < min(shares) < max(shares) < 1


def test_a_file_of_an_earlier_release_is_read(written: tuple[Any, Path], tmp_path: Path) -> None:
    """It has no shares: the error is relative to all that is read, as it was."""
    with safe_open(written[1], framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    layers = [{key: layer[key] for key in ("name", "heads", "scale")} for layer in json.loads(metadata["layers"])]
    save_file(tensors, tmp_path / "old", metadata | {"layers": json.dumps(layers)})
    assert read_geometry(tmp_path / "old", torch.device("cpu")).shares.tolist() == [1.0] * len(layers)


def test_the_file_says_where_it_comes_from(written: tuple[Any, Path], teacher: Path) -> None:
    with safe_open(written[1], framework="pt") as file:
        told = json.loads(file.metadata()["source"])
    assert told["teacher"] == str(teacher)
    assert (told["seed"], told["steps"], told["guidance"], told["prompts"]) == (0, 3, 7.5, list(GEOMETRY_PROMPTS))
    assert [path.name for path in written[1].parent.iterdir() if "partial" in path.name] == []


def test_a_pipeline_brings_its_own_text_encoder(tmp_path: Path, teacher: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    _unet().save_pretrained(tmp_path / "p" / "unet")
    CLIPTextModel.from_pretrained(teacher).save_pretrained(tmp_path / "p" / "text_encoder")
    CLIPTokenizer.from_pretrained(teacher).save_pretrained(tmp_path / "p" / "tokenizer")
    kind: Any = DDIMScheduler
    kind(prediction_type="v_prediction").save_pretrained(tmp_path / "p" / "scheduler")
    assert load_scheduler(str(tmp_path / "p"), 2).config.prediction_type == "v_prediction"
    main(["--unet", str(tmp_path / "p"), "--out", str(tmp_path / "g.safetensors"), "--steps", "1"])
    assert read_geometry(tmp_path / "g.safetensors", torch.device("cpu")).width == WIDTH


def test_two_encoders_side_by_side(tmp_path: Path, teacher: Path) -> None:
    """Each has the metric of its own columns; a read-out of one of them there is not."""
    unet = _unet(48)
    unet.register_to_config(addition_embed_type="image")
    unet.save_pretrained(tmp_path / "unet")
    common = ["--unet", str(tmp_path / "unet"), "--out", str(tmp_path / "g")]
    with pytest.raises(UserError, match=r"needs more than a prompt's states \(image\).* give --columns"):
        encoder_kind(unet, "x")
    for wrong in ("32:49", "5:5", "all"):
        with pytest.raises(UserError, match="give START:STOP within the width 48"):
            metric_of_columns(unet, wrong)
    unet = _unet(48)
    unet.save_pretrained(tmp_path / "unet")
    main([*common, "--columns", "16:48"])
    found = read_geometry(tmp_path / "g", torch.device("cpu"))
    maps = [linear.weight[:, 16:] for m in cross_attentions(unet).values() for linear in (m.to_k, m.to_v)]
    torch.testing.assert_close(found.metric, kv_quadratic_form(maps))
    assert (found.width, found.layers) == (WIDTH, ())
    tree = run_options(teacher, tmp_path, tmp_path / "run")
    tree["losses"] = {"kv_metric": {}, "unet_geometry": str(tmp_path / "g")}
    validate_losses(parse_config(write_config(tmp_path / "c.yaml", tree)), WIDTH)
    tree["losses"]["readout"] = {}
    with pytest.raises(UserError, match=r"losses\.readout: .* holds the metric of one of two encoders"):
        validate_losses(parse_config(write_config(tmp_path / "c.yaml", tree)), WIDTH)


def test_mistakes_are_one_line(tmp_path: Path, teacher: Path) -> None:
    out = str(tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="no folder '/nowhere'"):
        main(["--unet", "/nowhere", "--out", out])
    _unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(UserError, match="name its text encoder with --teacher"):
        main(["--unet", str(tmp_path / "unet"), "--out", out])
    _unet(48).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="its states are 32 wide, the UNet reads 48"):
        main(["--unet", str(tmp_path / "wide"), "--teacher", str(teacher), "--out", out])
    with pytest.raises(UserError, match="no file"):
        read_geometry(Path(out), torch.device("cpu"))
    Path(out).write_bytes(b"x")
    with pytest.raises(UserError, match="not readable"):
        read_geometry(Path(out), torch.device("cpu"))
