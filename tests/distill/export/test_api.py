"""The Python interface: three lines each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.api import load_student, plug_into
from eval import golden

PROMPT = "戴帽子拿剑的猫 and the dog，8k"


def test_encode(student: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["戴帽子拿剑的猫", "", "the cat", "猫 the dog " * 50, "\x00\u200b"]
    features = load_student(student).encode(texts, batch_size=2)
    assert features.shape == (5, 16)
    assert features.dtype == np.float32
    for text, found in zip(texts, features, strict=True):
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=77).input_ids])
        with torch.no_grad():
            own = torch.nn.functional.normalize(model(ids).text_embeds, dim=-1)[0].numpy()
        assert np.abs(found - own).max() < 2e-6
    assert load_student(str(student)).encode([]).shape == (0, 16)
    assert load_student(student).states([]).shape == (0, 77, 24)
    for read in (load_student(student).encode, load_student(student).states):
        with pytest.raises(TypeError, match=r"'猫' is one text .* put the one text into a list"):
            read("猫")


def test_states_are_what_a_pipeline_reads(student: Path, teachers: Path) -> None:
    from diffusers import StableDiffusionPipeline

    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(teachers, safety_checker=None)
    before = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    assert plug_into(pipeline, student) is pipeline
    after = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    assert not torch.equal(before, after)
    assert torch.equal(after, load_student(student).states([PROMPT]))
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(PROMPT, num_inference_steps=1, height=16, width=16, output_type="np").images.shape[1:3] == (16, 16)


def test_plug_into_takes_the_precision_and_refuses_misfits(student: Path, teachers: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(teachers, safety_checker=None, torch_dtype=torch.bfloat16)
    plug_into(pipeline, student)
    assert pipeline.text_encoder.dtype == torch.bfloat16
    encoder = pipeline.text_encoder
    with pytest.raises(UserError, match=r"plug_into: .*holds no text_encoder"):
        plug_into(pipeline, teachers / "tokenizer")
    weights = student / "text_encoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"plug_into: .*holds no text_encoder/ in safetensors"):
        plug_into(pipeline, student)
    torch.save(encoder.state_dict(), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(UserError, match=r"plug_into: .*holds no text_encoder/ in safetensors"):
        plug_into(pipeline, student)  # a pickle, which transformers would read
    weights.write_bytes(whole)
    pipeline.unet.register_to_config(cross_attention_dim=768)
    with pytest.raises(UserError, match="the UNet reads states of width 768, the student's have 24"):
        plug_into(pipeline, student)
    pipeline.text_encoder_2 = encoder
    with pytest.raises(UserError, match=r"is not a pipeline of Stable Diffusion 1.x or 2.x with one"):
        plug_into(pipeline, student)
    assert pipeline.text_encoder is encoder


def test_a_folder_that_is_no_student(tmp_path: Path, student: Path) -> None:
    with pytest.raises(UserError, match="load_student: no folder"):
        load_student(tmp_path / "absent")
    (student / "model.safetensors").rename(student / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"load_student: .*safetensors"):
        load_student(student)


def test_a_textual_inversion_learned_for_the_teacher_still_loads(student: Path, teachers: Path, tmp_path: Path) -> None:
    """Its token gets the next id above all of ours, and a Chinese prompt with it reads the learned vector."""
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import save_file

    kind: Any = StableDiffusionPipeline
    pipeline = plug_into(kind.from_pretrained(teachers, safety_checker=None), student)
    rows = len(pipeline.tokenizer)
    learned = torch.linspace(-1, 1, 24)[None]
    save_file({"<my-cat>": learned}, tmp_path / "embedding.safetensors")
    pipeline.load_textual_inversion(tmp_path, weight_name="embedding.safetensors", token="<my-cat>")
    assert pipeline.tokenizer.convert_tokens_to_ids("<my-cat>") == rows
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[rows], learned[0])
    assert rows in pipeline.tokenizer("戴帽子的<my-cat>，8k").input_ids
    plain = load_student(student).states([PROMPT])
    assert torch.equal(pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0], plain)


def test_a_damaged_table_of_characters_is_one_line(student: Path) -> None:
    """The tokenizers library panics on it, which no `except Exception` catches."""
    for place in (student, student / "tokenizer"):
        told = json.loads((place / "tokenizer.json").read_text())
        told["normalizer"]["normalizers"][-1]["precompiled_charsmap"] = "AAAA"
        (place / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"load_student: .* holds no tokenizer \(.*precompiled_charsmap"):
        load_student(student)
    with pytest.raises(UserError, match=r"cannot be loaded \(.*precompiled_charsmap"):
        golden.tokenizers(student)
