"""The node against a STUB of ComfyUI's interface (see comfyui_stub.py): not a run in ComfyUI."""

import importlib.util
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.api import load_pair, load_student, load_text_encoder
from distill.export.folder import export
from distill.export.formats import write_comfyui_node
from tests.distill.export.comfyui_stub import ROWS, install
from tests.eval.tiny import tiny_student_tokenizer

PACKAGE = Path("comfyui") / "ComfyUI-Yuqiao"


@pytest.fixture
def student(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """Where ComfyUI looks for text encoders."""
    (tmp_path / "models" / "text_encoders").mkdir(parents=True)
    export(model, tokenizer, tmp_path / "models" / "text_encoders" / "student", [write_comfyui_node])
    return tmp_path / "models" / "text_encoders" / "student"


@pytest.fixture
def nodes(student: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:  # noqa: ANN401  of the shipped module
    install(monkeypatch, tmp_path / "models")
    monkeypatch.chdir(tmp_path)  # wherever ComfyUI was started
    spec = importlib.util.spec_from_file_location("shipped", student / PACKAGE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.NODE_DISPLAY_NAME_MAPPINGS.keys() == module.NODE_CLASS_MAPPINGS.keys()
    return module.NODE_CLASS_MAPPINGS


@pytest.fixture
def node(nodes: Any) -> Any:  # noqa: ANN401
    return nodes["LoadYuqiaoStudent"]()


def tokens(clip: Any, prompt: str) -> list[list[tuple[Any, float]]]:  # noqa: ANN401
    chunks: list[list[tuple[Any, float]]] = clip.tokenizer.clip_l.tokenize_with_weights(prompt)
    assert all(len(chunk) == 77 for chunk in chunks)
    return chunks


@pytest.mark.parametrize("prompt", ["戴帽子拿剑的猫", "a 红色的helicopter，8k", "", "梵高星空，一只白羊。"])
def test_the_node_gives_the_students_states(node: Any, student: Path, prompt: str) -> None:  # noqa: ANN401
    (clip,) = getattr(node, node.FUNCTION)("student")
    own = load_student(student)
    assert len(own.tokenizer) > ROWS
    assert torch.allclose(clip.encode(prompt), own.states([prompt]), atol=1e-6)
    assert clip.tokenizer.clip_l.embedding_size == own.model.config.hidden_size
    end = own.tokenizer.eos_token_id
    assert clip.cond_stage_model.clip_l.special_tokens == {"start": own.tokenizer.bos_token_id, "end": end, "pad": end}


def test_a_student_of_stable_diffusion_2(node: Any, student: Path, model: CLIPTextModelWithProjection) -> None:  # noqa: ANN401
    """Its text_encoder/ has one layer less than the root, and it pads with '!'."""
    padded = tiny_student_tokenizer()
    padded.pad_token = "!"
    export(model, padded, student.parent / "sd2", state_layer="penultimate_normed")
    (clip,) = node.load("sd2")
    wanted = load_text_encoder(student.parent / "sd2", "x").states(["戴帽子拿剑的猫"])
    assert torch.allclose(clip.encode("戴帽子拿剑的猫"), wanted, atol=1e-6)
    assert not torch.allclose(wanted, load_student(student).states(["戴帽子拿剑的猫"]), atol=1e-2)


def test_a_student_of_both_encoders(nodes: Any, student: Path, pair: Path) -> None:  # noqa: ANN401
    (student.parent / "xl").symlink_to(pair / "student")
    node, wanted = nodes["LoadYuqiaoStudentXL"](), load_pair(pair / "student", "x")
    assert node.INPUT_TYPES()["required"]["student"][0] == ["xl"]
    assert nodes["LoadYuqiaoStudent"].INPUT_TYPES()["required"]["student"][0] == ["student"]
    assert node.IS_CHANGED("xl") > 0
    (clip,) = node.load("xl")
    assert (clip.tokenizer.clip_l.embedding_key, clip.tokenizer.clip_g.embedding_key) == ("clip_l", "clip_g")
    for prompt in ("戴帽子拿剑的猫! a dog", ""):
        states, pooled = clip.encode_pooled(prompt)
        torch.testing.assert_close(states, wanted.states([prompt]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pooled, wanted.pooled([prompt]), atol=1e-5, rtol=1e-5)


def test_chunks_end_behind_commas_and_never_inside_a_character(node: Any, student: Path) -> None:  # noqa: ANN401
    (clip,) = node.load("student")
    words = load_student(student).tokenizer
    comma = words("，", add_special_tokens=False).input_ids[-1]
    first, *_ = tokens(clip, "一幅水墨，" * 20)
    assert first[[token for token, _ in first].index(words.eos_token_id) - 1][0] == comma
    first, second, *_ = tokens(clip, "the " + "龘" * 60)  # 1 token and 3 a character
    assert first[74][0] == words.eos_token_id
    assert [token for token, _ in second[1:4]] == words("龘龘", add_special_tokens=False).input_ids[:3]
    ids = [token for chunk in (first, second) for token, _ in chunk]
    assert set(words("the 龘", add_special_tokens=False).input_ids[:-1]) <= set(ids)


@pytest.mark.parametrize("prompt", ["(水墨画:1.3)，山", "(水墨画：1.3)，山", "（水墨画：1.3），山"])
def test_weights_of_either_width(prompt: str, node: Any, student: Path) -> None:  # noqa: ANN401
    (clip,) = node.load("student")
    ids = load_student(student).tokenizer("水墨画", add_special_tokens=False).input_ids
    (chunk,) = tokens(clip, prompt)
    assert [weight for _, weight in chunk[1 : 1 + len(ids)]] == [1.3] * len(ids)
    assert {weight for _, weight in chunk[1 + len(ids) :]} == {1.0}


def test_an_embedding_between_chinese(node: Any) -> None:  # noqa: ANN401
    (clip,) = node.load("student")
    (chunk,) = tokens(clip, "猫embedding:风格，山")
    vectors = [token for token, _ in chunk if isinstance(token, torch.Tensor)]
    assert len(vectors) == 2
    (plain,) = tokens(clip, "猫，山")
    assert [token for token, _ in chunk if isinstance(token, int)][:6] == [token for token, _ in plain][:6]


def test_the_interface_that_comfyui_reads(node: Any, student: Path, model: Any) -> None:  # noqa: ANN401
    names, options = node.INPUT_TYPES()["required"]["student"]
    assert names == ["student"]
    assert "models/yuqiao" in options["tooltip"]
    assert node.RETURN_TYPES == ("CLIP",)
    before = node.IS_CHANGED("student")
    os.utime(student / "text_encoder" / "model.safetensors", (1, 1))
    assert node.IS_CHANGED("student") != before


def test_what_is_shipped_beside_the_node(node: Any, student: Path) -> None:  # noqa: ANN401
    files = {str(path.relative_to(student / PACKAGE)) for path in (student / PACKAGE).rglob("*") if path.is_file()}
    workflow = "example_workflows/chinese_prompt.json"
    assert {name for name in files if "__pycache__" not in name} == {"__init__.py", "pyproject.toml", workflow}
    graph = json.loads((student / PACKAGE / workflow).read_text(encoding="utf-8"))
    used = {step["class_type"] for step in graph.values()}
    assert "LoadYuqiaoStudent" in used
    assert all(
        link[0] in graph for step in graph.values() for link in step["inputs"].values() if isinstance(link, list)
    )
    assert tomllib.loads((student / PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]


def test_a_folder_that_is_no_student(node: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=r"absent: no exported student in models/text_encoders or models/yuqiao"):
        node.load("absent")
