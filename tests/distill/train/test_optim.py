"""The running mean of the weights, and steps that are left out because their gradient stands out."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distill.train import checkpoint, optim, trainer
from distill.train.optim import EMA, is_spike
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _records, _step_gradients, _train, _weights


def test_the_mean_by_hand() -> None:
    """From 1: the weight 2 counts 9/10 at step 0, the weight 3 half at step 90 under a decay of one half."""
    weight = nn.Parameter(torch.tensor([1.0]))
    average = EMA({"w": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(2)
    average.update(0)
    assert average.ema_weights["w"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    with torch.no_grad():
        weight.fill_(3)
    average.update(90)
    assert average.ema_weights["w"].item() == pytest.approx((1.9 + 3) / 2)
    with average.swapped_in():
        assert weight.item() == average.ema_weights["w"].item()
    assert weight.item() == 3


def test_a_run_with_a_mean_resumes_exactly_and_exports_it(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer.Trainer.step

    def killed(self: trainer.Trainer, number: int, readings: Any) -> Any:  # noqa: ANN401
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number, readings)

    for name in ("whole", "broken"):
        tree = run_options(teacher, corpus, tmp_path / name)
        tree["train"].update(ema=0.9, spike=8.0)
        arguments = write_config(tmp_path / f"{name}.yaml", tree)
        if name == "broken":
            with monkeypatch.context() as patch:
                patch.setattr(trainer.Trainer, "step", killed)
                with pytest.raises(KeyboardInterrupt):
                    _train(arguments, monkeypatch)
        _train(arguments, monkeypatch)
    for name in ("weights", "average", "optimizer"):
        ours, theirs = (_weights(tmp_path / run, 6, name) for run in ("broken", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert _records(tmp_path / "broken") == _records(tmp_path / "whole")
    folder = tmp_path / "whole" / "checkpoints"
    weights = {name: nn.Parameter(weight) for name, weight in _weights(tmp_path / "whole", 6).items()}
    told = checkpoint.load_weights(folder, 6, weights)
    assert checkpoint.load_weights(tmp_path / "broken" / "checkpoints", 6, weights) == told
    assert told == checkpoint.Progress(6, 48, 0, told.norms)
    assert len(told.norms) == 6
    mean, last = _weights(tmp_path / "whole", 6, "average"), _weights(tmp_path / "whole", 6)
    name = "text.text_model.final_layer_norm.weight"
    exported = checkpoint.open_run(tmp_path / "whole", None).student.to_clip().text_model.final_layer_norm.weight
    assert torch.equal(exported, mean[name])
    assert not torch.equal(exported, last[name])


@given(st.lists(st.floats(0.9, 1.1), min_size=16, max_size=128), st.floats(1e-6, 1e6))
def test_what_stands_out(norms: list[float], scale: float) -> None:
    """Whatever the scale of the norms: ten times as large is a spike, as large or smaller is none."""
    before = [norm * scale for norm in norms]
    assert is_spike(10 * scale, before, max_deviations=8)
    assert not is_spike(1.1 * scale, before, max_deviations=8)
    assert not is_spike(0.01 * scale, before, max_deviations=8)


def test_a_spike_by_hand() -> None:
    """Logarithms 0 and 1 in equal number: median 1/2, deviation 1.4826 / 2; the limit is 1/2 + 2 * 0.7413."""
    before = [1.0, math.e] * 8
    assert not is_spike(math.exp(1.98), before, max_deviations=2)
    assert is_spike(math.exp(1.99), before, max_deviations=2)
    assert not is_spike(math.exp(1.99), before[:15], max_deviations=2), "too few are known"


def _skips_step_4(norm: float, before: Any, most: float) -> bool:  # noqa: ANN401
    return len(list(before)) == 3


def test_a_spike_moves_no_weight_and_is_counted(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one process and on two, which decide alike."""
    monkeypatch.setattr(optim, "is_spike", _skips_step_4)
    for name in ("one", "two"):
        tree = run_options(teacher, corpus, tmp_path / name)
        tree["train"].update(spike=8.0, save_every=1, keep=6)
        arguments = write_config(tmp_path / f"{name}.yaml", tree)
        if name == "one":
            _train(arguments, monkeypatch)
        else:
            two_processes(_step_gradients(arguments), tmp_path)
        third, fourth, fifth = (_weights(tmp_path / name, step) for step in (3, 4, 5))
        assert all(torch.equal(third[key], fourth[key]) for key in third)
        assert not all(torch.equal(fourth[key], fifth[key]) for key in third)
        logged = [line for line in _records(tmp_path / name) if "loss" in line]
        assert [line["skipped"] for line in logged] == [0, 0, 0, 1, 1, 1]
        assert logged[3]["grad_norm"] > 0


def test_a_compiled_run(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The towers go through torch's compiler, here with the backend that compiles nothing, and train as before."""
    seen: list[Any] = []
    compiled: Any = torch.compile

    def without_compiler(function: Any, **how: Any) -> Any:  # noqa: ANN401
        seen.append(how)
        return compiled(function, backend="eager", **how)

    monkeypatch.setattr(torch, "compile", without_compiler)
    for name in ("plain", "compiled"):
        tree = run_options(teacher, corpus, tmp_path / name)
        tree["train"].update(compile=name == "compiled", steps=2)
        _train(write_config(tmp_path / f"{name}.yaml", tree), monkeypatch)
    assert seen == [{"dynamic": True}] * 2, "student and teacher"
    for one, two in zip(_records(tmp_path / "plain"), _records(tmp_path / "compiled"), strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-5)
