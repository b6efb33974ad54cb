"""SDXL's two encoders, trained for a step, through export, pipeline copy, plug_into and prompt_states."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

from data.cli import UserError
from distill.api import TextEncoderPair, load_student, plug_into
from distill.export.main import main as export_main
from distill.long_prompts import prompt_states
from distill.train.main import main as train_main
from tests.distill.tiny_clip import run_options, write_corpus
from tests.distill.tiny_xl import FIRST, SECOND, write_xl

PROMPT = "草地上的一只红色的猫! and the dog"
NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """xl/, a run of both encoders, its export, and the copy of the pipeline with it."""
    folder = tmp_path_factory.mktemp("pair")
    xl = write_xl(folder)
    tree = run_options(xl, write_corpus(folder / "corpus"), folder / "run")
    tree["losses"] = {"contrastive": None, "alignment": {}, "kv_metric": {}}
    tree["train"] |= {"steps": 2, "lr": 0.05}
    tree["stages"] = {"g": {}}
    (folder / "pair.yaml").write_text(yaml.safe_dump(tree))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr("sys.argv", ["distill", "--config", str(folder / "pair.yaml")])
        train_main()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    words = ["--run", "run", "--out", "student", "--pipeline", "xl", "--pipeline-out", "copy"]
    export_main([str(folder / word) if not word.startswith("--") else word for word in words])
    return folder


def opened(path: Path) -> Any:  # noqa: ANN401
    kind: Any = diffusers.StableDiffusionXLPipeline
    pipeline = kind.from_pretrained(path, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoded(pipeline: Any, prompt: Any = PROMPT, **more: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    return dict(zip(NAMES, pipeline.encode_prompt(prompt, device="cpu", **more), strict=True))


def test_the_folder_and_its_golden_vectors(folder: Path) -> None:
    student = folder / "student"
    parts = {"README.md", "golden", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}
    assert {path.name for path in student.iterdir()} == parts
    vectors = load_file(student / "golden" / "vectors.safetensors")
    prompts = json.loads((student / "golden" / "prompts.json").read_text(encoding="utf-8"))
    own = encoded(opened(folder / "copy"), prompts)
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        torch.testing.assert_close(own[name], vectors[name], atol=2e-5, rtol=1e-5)
    assert vectors["prompt_embeds"].shape == (20, 77, FIRST + SECOND)
    card = (student / "README.md").read_text(encoding="utf-8")
    assert "StableDiffusionXLPipeline" in card
    assert card.count("teacher:") == 2
    assert str(folder) not in card


def test_the_copy_draws_with_the_student_and_the_rest_is_untouched(folder: Path) -> None:
    for part in ("unet", "vae", "scheduler"):
        for path in (folder / "xl" / part).iterdir():
            assert (folder / "copy" / part / path.name).read_bytes() == path.read_bytes()
    images = opened(folder / "copy")(PROMPT, num_inference_steps=1, output_type="np").images
    assert images.shape == (1, 64, 64, 3)


def test_plug_into_and_load_student(folder: Path) -> None:
    pipeline = opened(folder / "xl")
    before = encoded(pipeline)
    assert plug_into(pipeline, folder / "student") is pipeline
    after, encoder = encoded(pipeline), load_student(folder / "student")
    assert not torch.equal(before["prompt_embeds"], after["prompt_embeds"])
    assert isinstance(encoder, TextEncoderPair)
    torch.testing.assert_close(encoder.states([PROMPT]), after["prompt_embeds"])
    torch.testing.assert_close(encoder.pooled([PROMPT]), after["pooled_prompt_embeds"])
    assert encoder.encode([PROMPT]).shape == (1, SECOND)
    assert (encoder.hidden_size, encoder.states([]).shape) == (FIRST + SECOND, (0, 77, FIRST + SECOND))
    pipeline.save_pretrained(folder / "saved")
    torch.testing.assert_close(encoded(opened(folder / "saved"))["prompt_embeds"], after["prompt_embeds"])


def test_misfits_are_refused(folder: Path) -> None:
    pipeline = opened(folder / "xl")
    one = folder / "student" / "text_encoder"
    with pytest.raises(UserError, match=r"has 2 text encoders, .* 1; take the student of this pipeline"):
        plug_into(pipeline, one)
    pipeline.unet.register_to_config(cross_attention_dim=2048)
    with pytest.raises(UserError, match=f"reads states of width 2048, the student's have {FIRST + SECOND}"):
        plug_into(pipeline, folder / "student")
    pipeline.text_encoder = None
    with pytest.raises(UserError, match=r"has no text_encoder with tokenizer \(SDXL.s refiner\?\)"):
        plug_into(pipeline, folder / "student")
    with pytest.raises(UserError, match="something else is there"):
        export_main(["--run", str(folder / "run"), "--out", str(folder / "copy")])


def test_prompt_states_are_the_pipelines_own(folder: Path) -> None:
    """Without weights, in one chunk: with and without a negative prompt, and one layer earlier (clip skip)."""
    pipeline = plug_into(opened(folder / "xl"), folder / "student")
    for negative in (None, "", "狗"):
        own = encoded(pipeline, negative_prompt=negative)
        found = prompt_states(pipeline, PROMPT, negative)
        assert found.keys() == own.keys()
        for name, value in own.items():
            torch.testing.assert_close(found[name], value, msg=f"{name} {negative}")
    skipped = encoded(pipeline, clip_skip=1)
    torch.testing.assert_close(prompt_states(pipeline, PROMPT, clip_skip=1)["prompt_embeds"], skipped["prompt_embeds"])


def test_weights_and_long_prompts(folder: Path) -> None:
    pipeline = plug_into(opened(folder / "xl"), folder / "student")
    found = prompt_states(pipeline, ["(猫:1.4)，狗 BREAK 8k", "草地上的一只红色的猫，" * 30], "狗")
    chunks = found["prompt_embeds"].shape[1] // 77
    assert chunks >= 2
    assert found["negative_prompt_embeds"].shape == found["prompt_embeds"].shape
    assert found["pooled_prompt_embeds"].shape == found["negative_pooled_prompt_embeds"].shape == (2, SECOND)
    plain = prompt_states(pipeline, ["猫，狗 BREAK 8k"], "狗")["prompt_embeds"]
    assert not torch.allclose(found["prompt_embeds"][:1, :77], plain[:, :77], atol=1e-3)
    assert pipeline(**found, num_inference_steps=1, output_type="np").images.shape == (2, 64, 64, 3)
