"""The further formats of an exported student, each loaded by the program that it is meant for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.export.folder import export
from distill.export.formats import GOLDEN_PROMPTS, write_golden, write_sentence_modules

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
