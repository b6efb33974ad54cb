"""The node against a STUB of ComfyUI's interface (see comfyui_stub.py): not a run in ComfyUI."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.api import load_student
from distill.export.formats import write_comfyui_node
from tests.distill.export.comfyui_stub import ROWS, install


@pytest.fixture
def node(
    student: Path,
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:  # noqa: ANN401  the shipped file, imported as ComfyUI imports it
    install(monkeypatch)
    write_comfyui_node(student, model, tokenizer)
    spec = importlib.util.spec_from_file_location("shipped", student / "comfyui" / "comfyui_node.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS["LoadYuqiaoStudent"]()


@pytest.mark.parametrize("prompt", ["戴帽子拿剑的猫", "a 红色的helicopter，8k", ""])
def test_the_node_gives_the_students_states(node: Any, student: Path, prompt: str) -> None:  # noqa: ANN401
    (clip,) = getattr(node, node.FUNCTION)(str(student))
    own = load_student(student)
    assert len(own.tokenizer) > ROWS
    assert torch.allclose(clip.encode(prompt), own.states([prompt]), atol=1e-6)
    assert clip.tokenizer.clip_l.embedding_size == own.model.config.hidden_size
    end = own.tokenizer.eos_token_id
    assert clip.cond_stage_model.clip_l.special_tokens == {"start": own.tokenizer.bos_token_id, "end": end, "pad": end}


def test_the_interface_that_comfyui_reads(node: Any) -> None:  # noqa: ANN401
    assert set(node.INPUT_TYPES()["required"]) == {"folder"}
    assert node.RETURN_TYPES == ("CLIP",)


def test_a_folder_that_is_no_student(node: Any, tmp_path: Path) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="no exported student there"):
        node.load(str(tmp_path))
