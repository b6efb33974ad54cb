"""The further formats of an exported student, each loaded by the program that it is meant for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.export import onnx
from distill.export.folder import export
from distill.export.formats import GOLDEN_PROMPTS, write_golden, write_sentence_modules
from distill.export.onnx import OPSET, TOLERANCE, write_onnx
from eval.retrieval.models import load_text_tower, text_features
from eval.retrieval.result import OPENAI

Model = CLIPTextModelWithProjection


def own_features(model: Model, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """One prompt at a time, as the definition has it."""
    with torch.no_grad():
        rows = [model(torch.tensor([tokenizer(text).input_ids])).text_embeds[0] for text in texts]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def test_golden_vectors_are_what_the_model_says(
    model: Model, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student", [write_golden])
    folder = tmp_path / "student" / "golden"
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    vectors = load_file(folder / "vectors.safetensors")
    assert prompts == list(GOLDEN_PROMPTS)
    assert len(prompts) == 20
    assert {"机械狗", "戴帽子拿剑的猫", "梵高星空", "阿拉斯加千年不化的雪山 一架红色直升机正在起飞"} <= set(prompts)
    assert vectors["last_hidden_state"].shape == (20, 77, 24)
    assert vectors["last_hidden_state"].dtype == torch.float32
    encoder = CLIPTextModel.from_pretrained(tmp_path / "student" / "text_encoder")
    with torch.no_grad():
        states = encoder(vectors["input_ids"]).last_hidden_state
    assert torch.allclose(states, vectors["last_hidden_state"], atol=1e-5)


@pytest.mark.parametrize(("precision", "bound"), [(torch.float16, 0.02), (torch.bfloat16, 0.2)])
def test_golden_vectors_hold_in_half_precision(
    precision: torch.dtype, bound: float, model: Model, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student", [write_golden])
    vectors = load_file(tmp_path / "student" / "golden" / "vectors.safetensors")
    encoder = CLIPTextModel.from_pretrained(tmp_path / "student" / "text_encoder", dtype=precision)
    with torch.no_grad():
        states = encoder(vectors["input_ids"]).last_hidden_state
    assert states.dtype == precision
    assert (states.float() - vectors["last_hidden_state"]).abs().max() < bound


def test_sentence_transformers_loads_the_folder(
    model: Model, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    package: Any = pytest.importorskip("sentence_transformers", reason="needs the extra `dev`: make install")
    export(model, tokenizer, tmp_path / "student", [write_sentence_modules])
    sentences = package.SentenceTransformer(str(tmp_path / "student"), device="cpu")
    texts = ["the cat", "猫 the dog", "戴帽子拿剑的猫", ""]
    found = sentences.encode(texts)  # of unlike lengths in one batch: padding must not be pooled
    assert np.abs(found - own_features(model, tokenizer, texts).numpy()).max() < 1e-5
    assert sentences.max_seq_length == 77
    long = sentences.encode(["猫 the dog " * 100])
    assert np.isfinite(long).all()
    assert float(sentences.similarity(found, found)[0, 0]) == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def onnx_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from tests.eval.tiny import text_half, tiny_clip, tiny_student_tokenizer

    words = tiny_student_tokenizer()
    out = tmp_path_factory.mktemp("onnx") / "student"
    export(text_half(tiny_clip(words)), words, out, [write_onnx])
    return out


def test_onnx_is_the_model_for_every_batch_and_length(onnx_student: Path, model: Model) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = onnx_student / "onnx" / "model.onnx"
    assert [(each.domain, each.version) for each in onnx.load(path).opset_import] == [("", OPSET)]
    session = onnxruntime.InferenceSession(str(path))
    generator = np.random.default_rng(0)
    for batch, length in ((1, 2), (1, 77), (7, 13)):
        ids = generator.integers(0, 500, (batch, length))
        ids[:, -1] = 519
        states, features = session.run(None, {"input_ids": ids})
        with torch.no_grad():
            own: Any = model(torch.from_numpy(ids))
        assert np.abs(states - own.last_hidden_state.numpy()).max() <= TOLERANCE
        assert np.abs(features - own.text_embeds.numpy()).max() <= TOLERANCE


def test_onnx_files_are_scored_by_the_benchmarks(onnx_student: Path) -> None:
    """int8 is a student of its own: the same command scores it."""
    plain = load_text_tower(str(onnx_student), "--student", torch.float32, torch.device("cpu"))
    texts = ["the cat", "猫 the dog", "机械狗", "戴帽子拿剑的猫 " * 30]
    wanted = text_features(plain, texts, OPENAI).features
    bounds = {"model.onnx": 1e-5, "model_int8.onnx": 0.2}
    for name, bound in bounds.items():
        tower = load_text_tower(str(onnx_student / "onnx" / name), "--student", torch.float32, torch.device("cpu"))
        assert (tower.max_length, tower.feature_dim) == (plain.max_length, plain.feature_dim)
        distance = np.abs(text_features(tower, texts, OPENAI).features - wanted).max()
        assert distance < bound
    assert distance > 1e-4  # int8 is another model
    (onnx_student / "onnx" / "broken.onnx").write_bytes(b"no protobuf")
    for name, message in (("broken", "not an exported ONNX student"), ("absent", "no such file")):
        with pytest.raises(UserError, match=message):
            load_text_tower(str(onnx_student / "onnx" / f"{name}.onnx"), "--s", torch.float32, torch.device("cpu"))


def test_an_onnx_file_too_far_away_is_not_an_export(
    onnx_student: Path,
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def other(model: Model, slots: int, path: Path) -> None:
        path.write_bytes((onnx_student / "onnx" / "model.onnx").read_bytes())

    with torch.no_grad():
        model.text_projection.weight[0, 0] += 0.01
    monkeypatch.setattr("distill.export.onnx.export_onnx", other)
    with pytest.raises(RuntimeError, match=r"model\.onnx: differs from the trained model by .*, over 0\.0001"):
        export(model, tokenizer, tmp_path / "student", [write_onnx])
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package onnx; .*yuqiao\[onnx\]"):
        onnx.require_packages()
