"""Checkpoints that a kill at any instant cannot break: written aside, renamed, then the oldest pruned.

safetensors only. A checkpoint holds the weights that train and the optimizer's moments by the weights' names; what is
frozen comes from the teacher again, and data order and learning rate are functions of the step.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from data.cli import UserError
from distill.distributed import distribute_like, full_tensor

DECODER = "decoder."
"""Before the names of the auxiliary decoder's weights, which only training and eval.translation read."""
_EMA_STEM = "average"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int
    pairs: int
    skipped: int = 0
    """Steps whose gradient was a spike."""
    norms: tuple[float, ...] = ()
    """Of the gradients of the last steps, where spikes are looked for."""


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that train, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def full_state(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The whole of every weight, for `save`; every process has to ask."""
    return {name: full_tensor(weight.detach()) for name, weight in weights.items()}


def optimizer_state(weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The whole of the optimizer's moments by the names of the weights, for `save`; every process has to ask."""
    return {
        f"{name}/{key}": full_tensor(value)
        for name, weight in weights.items()
        for key, value in optimizer.state[weight].items()
    }


def save(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    progress: Progress,
    keep: int,
    ema: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write `folder/step-NNNNNNNN` whole or not at all, and keep the newest `keep`; the main process alone calls it.

    `average` is the running mean of the weights where the run keeps one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _save_file(weights, partial / "weights.safetensors")
    if ema is not None:
        _save_file(ema, partial / f"{_EMA_STEM}.safetensors")
    _save_file(moments, partial / "optimizer.safetensors")
    (partial / "progress.json").write_text(json.dumps(asdict(progress)))
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
    partial.rename(folder / f"step-{progress.step:08d}")
    for step in saved_steps(folder)[:-keep]:
        # Renamed first: a half-deleted folder must never look like a checkpoint.
        (folder / f"step-{step:08d}").rename(folder / f"dying-{step:08d}")
    for dying in folder.glob("dying-*"):  # those of a save that was killed, too
        shutil.rmtree(dying)


def saved_steps(folder: Path) -> list[int]:
    """The steps of the whole checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def load_weights(folder: Path, step: int, weights: Mapping[str, nn.Parameter], use_ema: bool = False) -> Progress:
    """Copy a checkpoint's weights into `weights`, in place; UserError where they do not fit.

    Those that training goes on with or, where they are `to_use`, their running mean, if the run keeps one.

    A decoder in the checkpoint that `weights` has not is left out.
    """
    step_folder = folder / f"step-{step:08d}"
    average = step_folder / f"{_EMA_STEM}.safetensors"
    stored = _load_file(average if use_ema and average.is_file() else step_folder / "weights.safetensors")
    if not any(name.startswith(DECODER) for name in weights):
        stored = {name: weight for name, weight in stored.items() if not name.startswith(DECODER)}
    expected_shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    stored_shapes = {name: tuple(weight.shape) for name, weight in stored.items()}
    if expected_shapes != stored_shapes:
        name = sorted(
            name
            for name in expected_shapes.keys() | stored_shapes.keys()
            if expected_shapes.get(name) != stored_shapes.get(name)
        )[0]
        raise UserError(
            f"{step_folder}: {name} is {stored_shapes.get(name, 'absent')}, the run wants "
            f"{expected_shapes.get(name, 'none')}; "
            "the teacher or the vocabulary has changed: give another out_dir"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(stored[name])
    try:
        record = json.loads((step_folder / "progress.json").read_text())
        return Progress(**{**record, "norms": tuple(record.get("norms", ()))})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(step_folder / "progress.json", error) from error


def load_ema(folder: Path, step: int, ema_weights: Mapping[str, torch.Tensor]) -> None:
    """Copy a checkpoint's running mean into `mean`, in place."""
    stored = _load_file(folder / f"step-{step:08d}" / f"{_EMA_STEM}.safetensors")
    for name, tensor in ema_weights.items():
        tensor.copy_(distribute_like(stored[name], tensor))


def load_optimizer(
    folder: Path, step: int, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Restore the optimizer's moments of a checkpoint."""
    stored = _load_file(folder / f"step-{step:08d}" / "optimizer.safetensors")
    for name, weight in weights.items():
        state = {key.removeprefix(f"{name}/"): value for key, value in stored.items() if key.rpartition("/")[0] == name}
        # Fused AdamW wants all of it beside the weight, its step counter too.
        optimizer.state[weight] = {key: distribute_like(value, weight) for key, value in state.items()}


def _save_file(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _load_file(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not readable ({error}); remove {path.parent} to go on from the checkpoint before it")
