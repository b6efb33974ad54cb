"""A step in parts: the gradients and the numbers of the whole, with every loss that looks at the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data.cli import UserError
from distill.train import checkpoint, main, task
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _records, _step_gradients, _train, _weights


def _options(teacher: Path, corpus: Path, out: Path, parts: int) -> dict[str, Any]:
    tree = run_options(teacher, corpus, out)
    tree["train"]["accumulate"] = parts
    tree["losses"] = {
        "pooled": {"mse": 1.0}, "affinity": {}, "alignment": {}, "empty_prompt": {}, "translation": {"en_from_en": 0.1},
    }  # fmt: skip
    return tree


def _same(one: Path, other: Path) -> None:
    ours, theirs = _weights(one, 6), _weights(other, 6)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-3)
    for a, b in zip(_records(one), _records(other), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_parts_are_the_whole(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 pairs at once, 4 x 2 pairs, and on two processes 2 x 2 pairs each."""
    asked: list[int] = []
    backward = task.cached_backward

    def counted(task: Any, reading: Any, targets: Any, done: float, count: int, autocast: Any) -> Any:  # noqa: ANN401
        asked.append(len(reading.student_zh_ids) // count)
        return backward(task, reading, targets, done, count, autocast)

    monkeypatch.setattr("distill.train.trainer.cached_backward", counted)
    for name, parts in (("whole", 1), ("parts", 4)):
        _train(write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / name, parts)), monkeypatch)
    assert asked == [2] * 6, "two pairs at a time, each step"
    _same(tmp_path / "parts", tmp_path / "whole")
    arguments = write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "two", 2))
    results: list[Any] = two_processes(_step_gradients(arguments), tmp_path)
    assert [result["processes"].tolist() for result in results] == [[2], [2]]
    _same(tmp_path / "two", tmp_path / "whole")


def test_parts_that_do_not_divide_are_refused(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "run", 3))
    monkeypatch.setattr("sys.argv", ["distill.py", *arguments])
    with pytest.raises(UserError, match=r"train\.accumulate: 8 pairs a process do not divide into 3 parts"):
        main.main()
    assert not checkpoint.saved_steps(tmp_path / "run" / "checkpoints")
