"""The benchmark of training: what it counts, by hand, and the command itself."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig

from data.cli import UserError
from distill.distributed import Precision
from distill.train.batch import TrainBatch
from eval.speed import measure, training
from eval.speed.measure import count_tokens, step_flops, tower_flops

SHAPE = CLIPTextConfig(hidden_size=2, intermediate_size=8, num_hidden_layers=3, num_attention_heads=1, projection_dim=5)
TOKEN, PAIR, POOLED = 3 * 2 * (4 * 4 + 2 * 2 * 8), 3 * 4 * 2, 2 * 2 * 5
"""Of one token, of one query with one key, of one sentence's projection."""


def test_a_tower_by_hand() -> None:
    """Sentences of three tokens and of one."""
    lengths = torch.tensor([3.0, 1.0])
    assert tower_flops(SHAPE, lengths) == 4 * TOKEN + (9 + 1) * PAIR + 2 * POOLED
    # In the last of three layers: keys and values of four tokens, the rest of two, one query a sentence.
    last = 4 * 2 * 2 * 4 + 2 * 2 * (2 * 4 + 2 * 2 * 8) + 4 * PAIR / 3
    assert tower_flops(SHAPE, lengths, pooled_only=True) == 2 / 3 * (4 * TOKEN + 10 * PAIR) + last + 2 * POOLED


def _forward(*lengths: int, pooled_only: bool = False) -> float:
    return tower_flops(SHAPE, torch.tensor([float(length) for length in lengths]), pooled_only)


def test_a_step_by_hand() -> None:
    """Padding (0) is no work on tight steps; on full ones it is where a loss looks; backward is twice forward."""
    teacher = torch.tensor([[7, 3, 9, 0, 0], [7, 9, 0, 0, 0]])
    chinese = torch.tensor([[7, 4, 5, 9, 0], [7, 6, 9, 0, 0]])
    tight = TrainBatch(chinese, teacher[:1], teacher, None, 2, padded_to_max=False, draw=0)
    assert step_flops(SHAPE, tight, 9, 9) == _forward(3, 2) + 3 * (_forward(4, 3) + _forward(3))
    assert count_tokens(tight, 9, 9) == 5 + 7 + 3
    whole = TrainBatch(chinese, teacher[:1], teacher, None, 2, padded_to_max=True, draw=0)
    assert step_flops(SHAPE, whole, 9, 9) == _forward(5, 5) + 3 * (_forward(5, 5) + _forward(5))
    cut = TrainBatch(chinese[:, :4], teacher[:1], teacher[:, :3], teacher[:1], 2, padded_to_max=True, draw=0)
    assert step_flops(SHAPE, cut, 9, 9) == _forward(3, 2) + _forward(5) + 3 * (_forward(4, 3) + _forward(5))
    pooled = _forward(2, pooled_only=True), 3 * _forward(4, 3, pooled_only=True)
    assert step_flops(SHAPE, replace(tight, pooled_zh=True), 9, 9) == sum(pooled) + _forward(3) + 3 * _forward(3)
    assert step_flops(SHAPE, replace(cut, pooled_zh=True), 9, 9) == sum(pooled) + _forward(5) + 3 * _forward(5)


def test_the_clock_and_the_machine() -> None:
    def work() -> None:
        torch.randn(200, 200) @ torch.randn(200, 200)

    assert 0 < measure.timed(work) < 60
    assert measure.peak_flops("fp32") > 1e9


def test_the_command(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on, sentence-transformers too, in small; the large product is in the run's precision."""
    given = ["--teacher", str(teacher), "--corpus", str(corpus), "--work", str(tmp_path), "--batch-size", "8"]
    given += ["--steps", "2", "--full-share", "0.5", "--rounds", "2", "--precision", "fp32", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *given])
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)  # put back after --device has set it
    products = list[str]()

    def noted(precision: Precision) -> float:
        products.append(precision)
        return 1e9

    monkeypatch.setattr(training, "peak_flops", noted)
    training.main()
    assert set(products) == {"fp32"}
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result.keys() == {"machine", "settings", "steps", "peer"}
    assert result["machine"]["commit"]
    assert result["settings"]["precision"] == "fp32"
    assert result["settings"]["losses"] == ["Pooled", "Hidden", "Contrastive"]
    assert result["steps"]["padded over tight"]["median"] > 0
    for way in ("tight", "mix", "padded"):
        told = result["steps"][way]
        assert told["pairs a second"]["least"] <= told["pairs a second"]["median"] <= told["pairs a second"]["most"]
        assert told["of the large product"]["median"] > 0
        assert told["hours of this machine for 150 M pairs"] > 0
    assert 0 < result["steps"]["mix"]["share of teacher and loader"]["median"] < 1
    assert result["peer"].keys() == {"as shipped", "all English"}
    assert all(ratio["median"] > 0 for ratio in result["peer"].values())


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["benchmark.py", "--teacher", "t", "--corpus", str(tmp_path)]
    for wrong, said in (
        (["--steps", "3"], "must be whole"),
        (["--device", "tpu9"], "--device tpu9: "),
        (["--work", str(tmp_path / "w")], "no folder train there; python -m data.build makes a corpus"),
    ):
        monkeypatch.setattr(sys, "argv", [*common, *wrong])
        with pytest.raises(UserError, match=said):
            training.main()
