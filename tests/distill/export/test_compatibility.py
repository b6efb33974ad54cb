"""Programs of others on an exported student."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, CLIPTextModel

from distill.api import load_student

PROMPTS = (
    "机械狗",
    "戴帽子拿剑的猫",
    "梵高星空",
    "阿拉斯加千年不化的雪山 一架红色直升机正在起飞",
    "a 红色的helicopter，8k",
    "",
)


@pytest.fixture
def weighted(student: Path) -> Any:  # noqa: ANN401  compel is untyped
    """compel's own weighting of prompts, with the student's encoder and tokenizer."""
    compel: Any = pytest.importorskip("compel", reason="needs compel: make install")
    return compel.Compel(
        tokenizer=AutoTokenizer.from_pretrained(student / "tokenizer"),
        text_encoder=CLIPTextModel.from_pretrained(student / "text_encoder"),
        truncate_long_prompts=False,
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_compel_without_weights_is_the_student(prompt: str, weighted: Any, student: Path) -> None:  # noqa: ANN401
    assert torch.allclose(weighted(prompt), load_student(student).states([prompt]), atol=1e-6)


def test_compel_weights_chinese_and_lets_prompts_be_long(weighted: Any) -> None:  # noqa: ANN401
    plain, strong = weighted("戴帽子拿剑的猫"), weighted("戴帽子(拿剑)1.5的猫")
    assert strong.shape == plain.shape
    assert not torch.allclose(strong, plain, atol=1e-3)
    long = weighted("一幅画，" * 60)
    assert long.shape[1] % 77 == 0
    assert long.shape[1] > 77
    assert torch.isfinite(long).all()
    alike = weighted.pad_conditioning_tensors_to_same_length([long, plain])
    assert alike[0].shape == alike[1].shape  # as a positive and a negative prompt must be
