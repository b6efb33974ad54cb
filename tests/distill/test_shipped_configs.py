"""The shipped configurations: every one is read, and the full-size ones take a step on random weights."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from distill import checkpoint, main
from distill.config import parse
from distill.student.saved import load_run
from tests.conftest import REPOSITORY
from tests.distill.tiny_clip import SLOTS, teacher_tokenizer, write_corpus


def test_sd15_is_read() -> None:
    run = parse(["--config", str(REPOSITORY / "configs" / "sd15.yaml")]).run
    assert run.teacher == "openai/clip-vit-large-patch14"
    assert run.student.extended is not None
    assert run.losses.empty_prompt is not None
    assert run.train.full_share > 0, "Stable Diffusion reads all slots"


@pytest.mark.slow
def test_sd15_takes_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-L/14's text tower at full size (with the tiny tokenizer's vocabulary), random weights, one full step."""
    words = teacher_tokenizer()
    shape = CLIPTextConfig(
        vocab_size=len(words), hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=SLOTS, projection_dim=768, hidden_act="quick_gelu",
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPTextModelWithProjection(shape).save_pretrained(tmp_path / "teacher")
    words.save_pretrained(tmp_path / "teacher")
    changes = {
        "teacher": tmp_path / "teacher", "out_dir": tmp_path / "run", "data.corpus": write_corpus(tmp_path / "corpus"),
        "train.steps": 1, "train.batch_size": 4, "train.full_share": 1, "data.window": 1, "train.log_every": 1,
        "student.extended.vocabulary.words": 12, "student.extended.vocabulary.min_character_count": 1,
    }  # fmt: skip
    arguments = ["--config", str(REPOSITORY / "configs" / "sd15.yaml")]
    for key, value in changes.items():
        arguments += [f"--{key}", str(value)]
    monkeypatch.setattr(sys, "argv", ["distill.py", *arguments])
    main.main()
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [1]
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["empty_prompt"] < 1e-4, "English starts as the teacher's"
    assert first["grad_norm"] > 0
    model = load_run(tmp_path / "run").model
    layers = sum(w.numel() for name, w in model.named_parameters() if ".layers." in name)
    assert layers == 12 * (4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768)
