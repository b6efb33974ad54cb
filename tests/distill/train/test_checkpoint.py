"""Checkpoints: whole at any instant, exact on return, refused by name."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from data.cli import UserError
from distill.train import checkpoint
from distill.train.checkpoint import Progress


def _module(width: int = 4) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    """A module and an AdamW that has taken two steps."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
    module[1].bias.requires_grad_(False)
    weights = checkpoint.trainable(module)
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
    for _ in range(2):
        module(torch.ones(5, 3)).square().sum().backward()
        optimizer.step()
    return weights, optimizer


def _save(folder: Path, step: int, keep: int = 2) -> None:
    weights, optimizer = _module()
    with torch.no_grad():
        weights["0.weight"].fill_(step)
    checkpoint.save(folder, weights, checkpoint.optimizer_state(weights, optimizer), Progress(step, 8 * step), keep)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    weights, optimizer = _module()
    checkpoint.save(
        tmp_path, checkpoint.full_state(weights), checkpoint.optimizer_state(weights, optimizer), Progress(7, 56), 1
    )
    fresh = checkpoint.trainable(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    del fresh["1.bias"]
    again = torch.optim.AdamW(fresh.values(), lr=0.1)
    assert checkpoint.load_weights(tmp_path, 7, fresh) == Progress(7, 56)
    checkpoint.load_optimizer(tmp_path, 7, fresh, again)
    assert fresh.keys() == weights.keys() == {"0.weight", "0.bias", "1.weight"}
    for name, weight in weights.items():
        assert torch.equal(fresh[name], weight)
        stored, loaded = optimizer.state[weight], again.state[fresh[name]]
        assert stored.keys() == loaded.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(stored[key], loaded[key]) for key in stored)


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        _save(tmp_path, step)
    assert checkpoint.saved_steps(tmp_path) == [3, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]
    assert {path.name for path in (tmp_path / "step-00000010").iterdir()} == {
        "weights.safetensors",
        "optimizer.safetensors",
        "progress.json",
    }


def test_what_a_kill_left_neither_counts_nor_stays(tmp_path: Path) -> None:
    for name in ("partial", "dying-00000004", "step-12", "step-00000009.old"):
        (tmp_path / name).mkdir()
    assert checkpoint.saved_steps(tmp_path) == []
    assert checkpoint.saved_steps(tmp_path / "absent") == []
    _save(tmp_path, 5)
    assert checkpoint.saved_steps(tmp_path) == [5]
    assert not (tmp_path / "partial").exists()
    assert not (tmp_path / "dying-00000004").exists()


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    with pytest.raises(UserError, match=r"step-00000001: 0\.bias is \(4,\), the run wants \(5,\).*another out_dir"):
        checkpoint.load_weights(tmp_path, 1, _module(width=5)[0])
    fewer = {name: weight for name, weight in _module()[0].items() if name != "1.weight"}
    with pytest.raises(UserError, match=r"1\.weight is \(2, 4\), the run wants none"):
        checkpoint.load_weights(tmp_path, 1, fewer)


def _load(folder: Path) -> None:
    weights, optimizer = _module()
    checkpoint.load_weights(folder, 1, weights)
    checkpoint.load_optimizer(folder, 1, weights, optimizer)


@pytest.mark.parametrize("damage", ["cut", "noise", "absent"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, name: str, damage: str) -> None:
    _save(tmp_path, 1)
    path = tmp_path / "step-00000001" / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "noise":
        path.write_bytes(b"\xff" * 40)
    else:
        path.unlink()
    with pytest.raises(UserError, match=rf"{name}: not readable .*; remove .*step-00000001"):
        _load(tmp_path)


def test_kill_9_at_any_instant_of_a_save_leaves_a_whole_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the first, second, ... twentieth thing that saves do to the disk: half a file, a rename, a removal."""
    write, rename, remove = checkpoint._save_file, Path.rename, shutil.rmtree
    left = [0]

    def instant() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal_write(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half a file")
        instant()
        write(tensors, path)
        instant()

    def mortal_rename(self: Path, target: Path) -> Path:
        instant()
        moved = rename(self, target)
        instant()
        return moved

    def mortal_remove(path: Path, ignore_errors: bool = False) -> None:
        for file in path.glob("*"):
            file.unlink()
            instant()
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(checkpoint, "_save_file", mortal_write)
    monkeypatch.setattr(Path, "rename", mortal_rename)
    monkeypatch.setattr(shutil, "rmtree", mortal_remove)
    _save(tmp_path, 1, keep=1)
    newest, found = 1, set()
    for place in range(1, 21):
        child = os.fork()
        if child == 0:
            left[0] = place
            for step in range(newest + 1, newest + 9):
                _save(tmp_path, step, keep=1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        found.add(tuple(sorted(path.name.split("-")[0] for path in tmp_path.iterdir())))
        saved = checkpoint.saved_steps(tmp_path)
        assert saved
        assert saved[-1] >= newest
        newest = saved[-1]
        weights, optimizer = _module()
        assert checkpoint.load_weights(tmp_path, newest, weights) == Progress(newest, 8 * newest)
        assert (weights["0.weight"] == newest).all()
        checkpoint.load_optimizer(tmp_path, newest, weights, optimizer)
    assert newest > 9, "saves were really made"
    assert {("partial", "step"), ("step", "step"), ("dying", "step")} <= found, "and killed in every state"


def test_progress_is_readable_json(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    assert json.loads((tmp_path / "step-00000003" / "progress.json").read_text()) == {
        "step": 3,
        "pairs": 24,
        "skipped": 0,
        "norms": [],
    }
