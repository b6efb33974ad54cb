"""SDXL's two encoders, trained for a step, through export, pipeline copy, plug_into and prompt_states."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextModelWithProjection

from data.cli import UserError
from distill.api import TextEncoderPair, load_pair, load_student, plug_into
from distill.export.main import main as export_main
from distill.long_prompts import prompt_states
from eval import golden
from tests.distill.tiny_xl import FIRST, SECOND

PROMPT = "草地上的一只红色的猫! and the dog"
NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


def opened(path: Path) -> Any:  # noqa: ANN401
    kind: Any = diffusers.StableDiffusionXLPipeline
    pipeline = kind.from_pretrained(path, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoded(pipeline: Any, prompt: Any = PROMPT, **more: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    return dict(zip(NAMES, pipeline.encode_prompt(prompt, device="cpu", **more), strict=True))


def test_the_folder_and_its_golden_vectors(pair: Path) -> None:
    student = pair / "student"
    parts = {"README.md", "comfyui", "webui", "golden", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}
    assert {path.name for path in student.iterdir()} == parts
    vectors = load_file(student / "golden" / "vectors.safetensors")
    prompts = json.loads((student / "golden" / "prompts.json").read_text(encoding="utf-8"))
    own = encoded(opened(pair / "copy"), prompts)
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        torch.testing.assert_close(own[name], vectors[name], atol=2e-5, rtol=1e-5)
    assert vectors["prompt_embeds"].shape == (20, 77, FIRST + SECOND)
    card = (student / "README.md").read_text(encoding="utf-8")
    assert "StableDiffusionXLPipeline" in card
    assert card.count("\nteacher:") == 2
    assert str(pair) not in card


def test_the_copy_draws_with_the_student_and_the_rest_is_untouched(pair: Path) -> None:
    for part in ("unet", "vae", "scheduler"):
        for path in (pair / "xl" / part).iterdir():
            assert (pair / "copy" / part / path.name).read_bytes() == path.read_bytes()
    images = opened(pair / "copy")(PROMPT, num_inference_steps=1, output_type="np").images
    assert images.shape == (1, 64, 64, 3)


def test_plug_into_and_load_student(pair: Path) -> None:
    pipeline = opened(pair / "xl")
    before = encoded(pipeline)
    assert plug_into(pipeline, pair / "student") is pipeline
    after, encoder = encoded(pipeline), load_student(pair / "student")
    assert not torch.equal(before["prompt_embeds"], after["prompt_embeds"])
    assert isinstance(encoder, TextEncoderPair)
    torch.testing.assert_close(encoder.states([PROMPT]), after["prompt_embeds"])
    torch.testing.assert_close(encoder.pooled([PROMPT]), after["pooled_prompt_embeds"])
    assert encoder.encode([PROMPT]).shape == (1, SECOND)
    assert (encoder.hidden_size, encoder.states([]).shape) == (FIRST + SECOND, (0, 77, FIRST + SECOND))
    pipeline.save_pretrained(pair / "saved")
    torch.testing.assert_close(encoded(opened(pair / "saved"))["prompt_embeds"], after["prompt_embeds"])


def test_eval_golden_reads_the_pair(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden.main([str(pair / "student"), "--pipeline", str(pair / "copy")])
    said = capsys.readouterr().out
    assert said.count("20 of 20 prompts equal") == 4
    assert said.endswith("holds\n")
    report = golden.check_export(pair / "student")
    assert report["precisions"]["fp32"]["states"] < 1e-5
    assert report["precisions"]["fp32"]["pooled"] < 1e-5


def test_the_two_clips_of_stable_diffusion_3(pair: Path) -> None:
    """Without its T5: the pair's states fill the first columns, its pooled state the second part of the pooled."""
    kinds: Any = diffusers
    width = FIRST + SECOND + 8
    transformer = kinds.SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=width, caption_projection_dim=16, pooled_projection_dim=FIRST + SECOND,
    )  # fmt: skip
    student = load_pair(pair / "student", "x")
    first: Any = CLIPTextModelWithProjection
    pipeline = kinds.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=kinds.FlowMatchEulerDiscreteScheduler(),
        vae=kinds.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16),
        text_encoder=first.from_pretrained(pair / "student" / "text_encoder"), tokenizer=student.tokenizer,
        text_encoder_2=student.second.model, tokenizer_2=student.second.tokenizer, text_encoder_3=None,
        tokenizer_3=None,
    )  # fmt: skip
    states, _, pooled, _ = pipeline.encode_prompt(PROMPT, PROMPT, PROMPT, device="cpu", max_sequence_length=8)
    assert states.shape == (1, 77 + 8, width)
    torch.testing.assert_close(states[:, :77, : FIRST + SECOND], student.states([PROMPT]))
    assert not states[:, 77:].any()
    torch.testing.assert_close(pooled[:, FIRST:], student.pooled([PROMPT]))


def test_misfits_are_refused(pair: Path) -> None:
    pipeline = opened(pair / "xl")
    one = pair / "student" / "text_encoder"
    with pytest.raises(UserError, match=r"has 2 text encoders, .* 1; take the student of this pipeline"):
        plug_into(pipeline, one)
    pipeline.unet.register_to_config(cross_attention_dim=2048)
    with pytest.raises(UserError, match=f"reads states of width 2048, the student's have {FIRST + SECOND}"):
        plug_into(pipeline, pair / "student")
    pipeline.text_encoder = None
    with pytest.raises(UserError, match=r"has no text_encoder with tokenizer \(SDXL.s refiner\?\)"):
        plug_into(pipeline, pair / "student")
    with pytest.raises(UserError, match=r"--parts onnx: is of one encoder; SDXL's two take comfyui and webui"):
        export_main(["--run", str(pair / "run"), "--out", str(pair / "other"), "--parts", "onnx", "comfyui"])
    with pytest.raises(UserError, match="something else is there"):
        export_main(["--run", str(pair / "run"), "--out", str(pair / "copy")])


def test_prompt_states_are_the_pipelines_own(pair: Path) -> None:
    """Without weights, in one chunk: with and without a negative prompt, and one layer earlier (clip skip)."""
    pipeline = plug_into(opened(pair / "xl"), pair / "student")
    for negative in (None, "", "狗"):
        own = encoded(pipeline, negative_prompt=negative)
        found = prompt_states(pipeline, PROMPT, negative)
        assert found.keys() == own.keys()
        for name, value in own.items():
            torch.testing.assert_close(found[name], value, msg=f"{name} {negative}")
    skipped = encoded(pipeline, clip_skip=1)
    torch.testing.assert_close(prompt_states(pipeline, PROMPT, clip_skip=1)["prompt_embeds"], skipped["prompt_embeds"])


def test_weights_and_long_prompts(pair: Path) -> None:
    pipeline = plug_into(opened(pair / "xl"), pair / "student")
    found = prompt_states(pipeline, ["(猫:1.4)，狗 BREAK 8k", "草地上的一只红色的猫，" * 30], "狗")
    chunks = found["prompt_embeds"].shape[1] // 77
    assert chunks >= 2
    assert found["negative_prompt_embeds"].shape == found["prompt_embeds"].shape
    assert found["pooled_prompt_embeds"].shape == found["negative_pooled_prompt_embeds"].shape == (2, SECOND)
    plain = prompt_states(pipeline, ["猫，狗 BREAK 8k"], "狗")["prompt_embeds"]
    assert not torch.allclose(found["prompt_embeds"][:1, :77], plain[:, :77], atol=1e-3)
    assert pipeline(**found, num_inference_steps=1, output_type="np").images.shape == (2, 64, 64, 3)
