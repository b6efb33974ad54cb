"""The student inside a copy of a whole pipeline, and the Python interface to it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.export import pipeline as export_pipeline
from distill.export.main import parse

PROMPT = "戴帽子拿剑的cat and the dog，8k"


def test_the_copy_draws_with_the_student_and_the_rest_is_untouched(
    teachers: Path,
    student: Path,
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    write_pipeline(student, str(teachers), tmp_path / "swapped")
    for part in ("unet", "vae", "scheduler"):
        for path in (teachers / part).iterdir():
            assert (tmp_path / "swapped" / part / path.name).read_bytes() == path.read_bytes()
    index = json.loads((tmp_path / "swapped" / "model_index.json").read_text())
    assert index["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]  # CLIP's own has other rules
    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(tmp_path / "swapped", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    states = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    ids = tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(states, model.text_model(ids).last_hidden_state)
    assert pipeline(PROMPT, num_inference_steps=1, height=16, width=16, output_type="np").images.shape[1:3] == (16, 16)
    write_pipeline(student, str(teachers), tmp_path / "swapped")  # a repeat replaces it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student", "swapped"]


def write_pipeline(student: Path, source: str, out: Path) -> None:
    """Check and write, in the order of the command line."""
    pipeline = export_pipeline.resolve_pipeline(source)
    export_pipeline.check_pipeline_out(out, student, pipeline)
    export_pipeline.check_pipeline_fit([24], pipeline)
    export_pipeline.write_pipeline(student, pipeline.folder, out)


def changed(teachers: Path, folder: Path, path: str, **values: object) -> Path:
    shutil.copytree(teachers, folder)
    value = json.loads((folder / path).read_text())
    (folder / path).write_text(json.dumps({**value, **values}))
    return folder


def test_pipelines_that_do_not_fit(teachers: Path, student: Path, tmp_path: Path) -> None:
    index = "model_index.json"
    xl = changed(
        teachers, tmp_path / "xl", index,
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"], _class_name="StableDiffusionXLPipeline",
    )  # fmt: skip
    t5 = changed(teachers, tmp_path / "t5", index, text_encoder=["transformers", "T5EncoderModel"])
    wide = changed(teachers, tmp_path / "wide", "unet/config.json", cross_attention_dim=768)
    pickled = tmp_path / "pickled"
    shutil.copytree(teachers, pickled)
    weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    half = changed(teachers, tmp_path / "half", index, text_encoder=["transformers"])
    (tmp_path / "bare").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("mine")
    for source, said in (
        (xl, "it has 2 text encoders, the student 1"),
        (t5, "its encoder is not a CLIPTextModel"),
        (wide, "its UNet reads states of width 768, the student's have 24"),
        (pickled, r"diffusion_pytorch_model\.bin is a pickle"),
        (half, "text_encoder.1: Field required"),
        (tmp_path / "bare", "no model_index.json"),
        (tmp_path / "absent", "no model_index.json"),
    ):
        with pytest.raises(UserError, match=said):
            write_pipeline(student, str(source), tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="something else is there"):
        write_pipeline(student, str(teachers), tmp_path / "mine")
    assert (tmp_path / "mine" / "photo.jpg").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("mine/../own", "lies on, in or around the folder of --pipeline;"),
        ("own/copy", "lies on, in or around the folder of --pipeline;"),
        ("student", "lies on, in or around the folder of --out;"),
        ("student/copy", "lies on, in or around the folder of --out;"),
        (".", "lies on, in or around the folder of --out;"),
        ("mine/photo.jpg/copy", "no folder .*photo.jpg; make it first"),
        ("mine/photo.jpg", "something else is there"),
    ],
)
def test_places_for_the_copy_are_refused_before_anything_is_written(
    teachers: Path, tmp_path: Path, out: str, said: str
) -> None:
    own = shutil.copytree(teachers, tmp_path / "own")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("mine")
    (tmp_path / "run").mkdir()
    before = sorted(tmp_path.rglob("*"))
    words = ["--run", tmp_path / "run", "--out", tmp_path / "student", "--pipeline", own, "--pipeline-out"]
    with pytest.raises(UserError, match=f"--pipeline-out .*{said}"):
        parse([*map(str, words), str(tmp_path / out)])
    assert sorted(tmp_path.rglob("*")) == before
