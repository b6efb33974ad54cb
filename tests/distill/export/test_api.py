"""The Python interface: three lines each."""

import builtins
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.api import load_student, load_text_encoder, plug_into
from distill.long_prompts import prompt_states
from distill.text_tower import load_pretrained
from eval import golden
from tests.distill.forked import forget_the_project

PROMPT = "戴帽子拿剑的猫 and the dog，8k"


def opened(folder: Path) -> Any:  # noqa: ANN401  untyped
    kind: Any = StableDiffusionPipeline
    return kind.from_pretrained(folder, safety_checker=None)


def states_of(pipeline: Any) -> torch.Tensor:  # noqa: ANN401
    states: torch.Tensor = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    return states


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
    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(teachers, safety_checker=None, torch_dtype=torch.bfloat16)
    plug_into(pipeline, student)
    assert pipeline.text_encoder.dtype == torch.bfloat16
    encoder = pipeline.text_encoder
    with pytest.raises(UserError, match=r"plug_into: .*holds no text_encoder"):
        plug_into(pipeline, teachers / "unet")
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
    with pytest.raises(UserError, match=r"this StableDiffusionPipeline has no text_encoder_2 with tokenizer"):
        plug_into(pipeline, student)
    assert pipeline.text_encoder is encoder


def test_texts_of_any_kind_and_rows_that_are_none(student: Path) -> None:
    pd: Any = pytest.importorskip("pandas", reason="a package of other packages of ours")
    import pyarrow as pa

    encoder, texts = load_student(student), ["戴帽子拿剑的猫", "", "the cat"]
    wanted = encoder.encode(texts)
    for kind in (np.array, pd.Series, pa.array, iter, tuple, lambda rows: pd.Series(rows, index=[7, 8, 9])):
        assert np.array_equal(encoder.encode(kind(texts)), wanted)
        assert torch.equal(encoder.states(kind(texts)), encoder.states(texts))
    for read in (encoder.encode, encoder.states):
        wrong: Any
        for wrong in (None, float("nan"), 3, b"cat"):
            with pytest.raises(TypeError, match=r"row 1 is .*, no text; leave it out"):
                read(["猫", wrong])
        with pytest.raises(ValueError, match="row 2 holds half a character"):
            read(["猫", "", "a\ud83d"])


def test_an_end_of_text_inside_a_text_ends_it_everywhere(student: Path, teachers: Path) -> None:
    encoder = load_student(student)
    assert np.allclose(encoder.encode(["the cat<|endoftext|> 猫"]), encoder.encode(["the cat"]), atol=1e-6)
    pipeline = plug_into(opened(teachers), student)
    states = prompt_states(pipeline, "the cat<|endoftext|> 猫")["prompt_embeds"]
    assert torch.allclose(states, encoder.states(["the cat<|endoftext|> 猫"]), atol=1e-6)


def test_folders_by_home_and_by_part(student: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(student.parent))
    wanted = load_student(student)
    for name in ("~/student", "~/student/text_encoder", str(student / "tokenizer")):
        assert np.array_equal(load_student(name).encode([PROMPT]), wanted.encode([PROMPT]))
        assert torch.equal(load_text_encoder(name, "x").states([PROMPT]), wanted.states([PROMPT]))
        assert plug_into(opened(teachers), name).tokenizer.get_vocab() == wanted.tokenizer.get_vocab()
    pipeline = plug_into(opened(teachers), student)
    pipeline.save_pretrained(student.parent / "copy")
    for name in ("~/copy", "~/copy/text_encoder"):
        encoder = load_student(name)
        assert torch.equal(encoder.states([PROMPT]), wanted.states([PROMPT]))
        with pytest.raises(UserError, match="no projection"):
            encoder.encode([PROMPT])
    teacher = load_pretrained(str(teachers))
    assert (teacher.width, teacher.max_length) == (24, 77)
    with pytest.raises(UserError, match="load_student: no folder '~/absent'"):
        load_student("~/absent")


def test_a_saved_pipeline_names_a_class_that_every_release_knows(student: Path, teachers: Path, tmp_path: Path) -> None:
    plug_into(opened(teachers), student).save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]
    config = json.loads((tmp_path / "saved" / "tokenizer" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    again = opened(tmp_path / "saved")
    assert torch.equal(states_of(again), load_student(student).states([PROMPT]))


def test_plug_into_a_pipeline_that_is_offloaded(student: Path, teachers: Path) -> None:
    """With accelerate's hooks on a CPU: the student takes those of the encoder that it replaces, and keeps weights."""
    from accelerate import cpu_offload, dispatch_model

    wanted = load_student(student).states([PROMPT])

    def one_layer_at_a_time(pipeline: Any) -> None:  # noqa: ANN401  as enable_sequential_cpu_offload does
        for model in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
            cpu_offload(model, torch.device("cpu"), offload_buffers=len(model._parameters) > 0)

    def mapped(pipeline: Any) -> None:  # noqa: ANN401  as from_pretrained(device_map=...) does
        dispatch_model(pipeline.text_encoder, {"": "cpu"}, force_hooks=True)

    for offload, hook in (
        (lambda pipeline: pipeline.enable_model_cpu_offload(device="cpu"), "CpuOffload"),
        (one_layer_at_a_time, "AlignDevicesHook"),
        (mapped, "AlignDevicesHook"),
    ):
        pipeline = opened(teachers)
        pipeline.set_progress_bar_config(disable=True)
        offload(pipeline)
        before = {name for name, module in pipeline.text_encoder.named_modules() if hasattr(module, "_hf_hook")}
        plug_into(pipeline, student)
        after = {name for name, module in pipeline.text_encoder.named_modules() if hasattr(module, "_hf_hook")}
        assert after == before
        assert type(pipeline.text_encoder._hf_hook).__name__ == hook
        assert torch.equal(states_of(pipeline), wanted)
        assert torch.equal(prompt_states(pipeline, PROMPT)["prompt_embeds"], wanted)
        drawn = [
            pipeline(PROMPT, num_inference_steps=1, height=16, width=16, output_type="np").images for _ in range(2)
        ]
        assert np.isfinite(drawn).all()


def test_what_plug_into_would_lose_is_refused(student: Path, teachers: Path) -> None:
    peft: Any = pytest.importorskip("peft", reason="needs the extra `dev`: make install")
    pipeline = opened(teachers)
    encoder = pipeline.text_encoder
    pipeline.load_textual_inversion({"<my-cat>": torch.zeros(1, 24)}, token="<my-cat>")
    with pytest.raises(UserError, match="<my-cat> is loaded; load textual inversions after plug_into"):
        plug_into(pipeline, student)
    assert pipeline.text_encoder is encoder
    pipeline = opened(teachers)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), pipeline.text_encoder)
    with pytest.raises(UserError, match=r"a LoRA is loaded; call pipeline\.unload_lora_weights"):
        plug_into(pipeline, student)


def test_files_of_an_export_are_readable_by_others(student: Path, teachers: Path, tmp_path: Path) -> None:
    files = [path for path in student.rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o666 & ~current_umask())}


def current_umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_a_folder_that_is_no_student(tmp_path: Path, student: Path) -> None:
    with pytest.raises(UserError, match="load_student: no folder"):
        load_student(tmp_path / "absent")
    (student / "model.safetensors").rename(student / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"load_student: .*safetensors"):
        load_student(student)


def test_a_textual_inversion_learned_for_the_teacher_still_loads(student: Path, teachers: Path, tmp_path: Path) -> None:
    """Its token gets the next id above all of ours, and a Chinese prompt with it reads the learned vector."""
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
        (table,) = [rule for rule in told["normalizer"]["normalizers"] if rule["type"] == "Precompiled"]
        table["precompiled_charsmap"] = "AAAA"
        (place / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"load_student: .* holds no tokenizer \(.*precompiled_charsmap"):
        load_student(student)
    with pytest.raises(UserError, match=r"cannot be loaded \(.*precompiled_charsmap"):
        golden.tokenizers(student)


def _without_posix(student: Path, sent: Any) -> None:  # noqa: ANN401  a connection
    """In a fork: import the project again where no module of it can import what Windows lacks, and use `student`."""
    forget_the_project()
    imported = builtins.__import__

    def without_posix(name: str, within: Any = None, *rest: Any) -> Any:  # noqa: ANN401
        package = within["__name__"].partition(".")[0] if within else ""
        if name in ("fcntl", "resource", "pwd", "termios") and package in ("data", "distill"):
            raise ImportError(name)
        return imported(name, within, *rest)

    builtins.__import__ = without_posix  # type: ignore[assignment]
    del signal.SIGUSR1, os.fork
    import data.build.__main__  # noqa: F401
    import distill.train.main  # noqa: F401
    from distill import load_student

    sent.send(load_student(student).encode(["猫"]).shape)


def test_a_student_is_used_where_posix_calls_are_missing(student: Path) -> None:
    """As on Windows: neither the public Python nor the commands import a module of POSIX."""
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    process = context.Process(target=_without_posix, args=(student, sent))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert received.recv() == (1, 16)
