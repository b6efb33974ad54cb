"""The ONNX files of an exported student: the model's numbers, their scores and their rows on the card."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.export import onnx
from distill.export.folder import export
from distill.export.model_card import card_writer
from distill.export.onnx import OPSET, TOLERANCE, write_onnx
from distill.train.config import RunConfig
from eval.datasets.benchmark import BENCHMARKS
from eval.retrieval import command
from eval.retrieval.models import load_text_tower, text_features
from eval.retrieval.result import OPENAI
from tests.distill.export.test_model_card import card_info
from tests.eval.files import write_files
from tests.eval.tiny import save_clip, text_half, tiny_clip, tiny_student_tokenizer

Model = CLIPTextModelWithProjection


@pytest.fixture(scope="module")
def onnx_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the fixture `model`, exported once, because that takes seconds."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
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


def test_onnx_files_are_scored_by_the_benchmarks(onnx_student: Path, tmp_path: Path) -> None:
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
    shutil.copytree(onnx_student, tmp_path / "student")
    (tmp_path / "student" / "onnx" / "broken.onnx").write_bytes(b"no protobuf")
    for name, message in (("broken", "not an exported ONNX student"), ("absent", "no such file")):
        with pytest.raises(UserError, match=message):
            load_text_tower(
                str(tmp_path / "student" / "onnx" / f"{name}.onnx"), "--s", torch.float32, torch.device("cpu")
            )


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


def test_the_int8_file_has_a_score_of_its_own(
    onnx_student: Path, model: Model, tokenizer: PreTrainedTokenizerFast, run: RunConfig, tmp_path: Path
) -> None:
    """Export, score, export again with the scores: as the docs have it; a result of other weights is refused."""
    out, files, clip = tmp_path / "student", write_files(tmp_path), save_clip(tmp_path / "clip")
    shutil.copytree(onnx_student, out)
    results = []
    for student in (out, out / "onnx" / "model_int8.onnx"):
        results.append(tmp_path / f"{student.stem}.json")
        words = ["--student", student, "--clip", clip, "--data", files.jsonl, "--title", "Drawn", "--out", results[-1]]
        command.run_benchmark(BENCHMARKS["flickr30k-cn"], [str(word) for word in words])
    origin = card_info("student", "other", run, results)
    export(model, tokenizer, out, [write_onnx, card_writer(origin)])
    read = ModelCard.load(out / "README.md")
    scores = {each.metric_name: each.metric_value for each in read.data.eval_results if each.dataset_config == "zh"}
    plain, int8 = (json.loads(path.read_text(encoding="utf-8"))["rows"] for path in results)
    assert scores["mean recall"] == plain[0]["mr"]
    assert scores["mean recall, onnx/model_int8.onnx"] == int8[0]["mr"]
    assert "| Drawn | student | zh |" in read.text
    assert "| Drawn | student as onnx/model_int8.onnx | zh |" in read.text
    assert read.text.count("| Drawn | teacher (reference) | en |") == 1
    before = (out / "README.md").read_bytes()
    with pytest.raises(UserError, match=r"of onnx/model_int8\.onnx, which is not exported; add --parts onnx"):
        export(model, tokenizer, out, [card_writer(origin)])
    with torch.no_grad():
        model.text_projection.weight[0, 0] += 1
    with pytest.raises(UserError, match=r"student\.json: of another model\.safetensors than this one; score this"):
        export(model, tokenizer, out, [card_writer(origin)])
    assert (out / "README.md").read_bytes() == before
