"""Checkpoints that a kill at any instant cannot break: written under a temporary name, renamed, the oldest pruned.

safetensors only. A checkpoint holds the weights that train and the optimizer's moments by the weights' names; frozen
weights come from the teacher again, and data order and learning rate are functions of the step.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from data.cli import UserError, one_line
from distill.distributed import distribute_like, full_tensor, rank
from distill.losses.translation import Decoder
from distill.student.base import StudentEncoder
from distill.train.config import RunConfig, read_stored_config

DECODER = "decoder."
"""Prefix of the auxiliary decoder's weights, which only training and eval.translation use."""
_EMA_STEM = "average"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    step: int
    pairs: int
    skipped: int = 0
    """Steps whose gradient was not finite or a spike."""
    norms: tuple[float, ...] = ()
    """Gradient norms of the last steps, for `train.spike`."""


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that train, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def full_state(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every weight on rank 0's CPU, gathered one at a time, for `save`; empty on other ranks; collective."""
    gathered = ((name, full_tensor(weight.detach())) for name, weight in weights.items())
    return {name: weight.cpu() for name, weight in gathered if rank() == 0}


def optimizer_state(weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's moments by the names of the weights, as `full_state` has them; collective."""
    moments = {name: optimizer.state[weight] for name, weight in weights.items()}
    return full_state({f"{name}/{key}": value for name, each in moments.items() for key, value in each.items()})


def save(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    progress: Progress,
    keep: int,
    ema: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write `folder/step-NNNNNNNN` atomically, and keep the newest `keep`; on the main process alone.

    `ema` holds the averaged weights where the run has them. A full disk is a UserError; older checkpoints stay whole.
    """
    partial = folder / "partial"
    try:
        _write(partial, weights, moments, progress, ema)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"{folder}: step {progress.step} could not be saved ({one_line(error)}); free the disk and start the same "
            "command again: it goes on from the newest checkpoint"
        ) from error
    partial.rename(folder / f"step-{progress.step:08d}")
    for step in saved_steps(folder)[:-keep]:
        # Renamed first: a half-deleted folder must never look like a checkpoint.
        (folder / f"step-{step:08d}").rename(folder / f"dying-{step:08d}")
    for dying in folder.glob("dying-*"):  # those of a save that was killed, too
        shutil.rmtree(dying)


def _write(
    partial: Path,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    progress: Progress,
    ema: Mapping[str, torch.Tensor] | None,
) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _save_file(weights, partial / "weights.safetensors")
    if ema is not None:
        _save_file(ema, partial / f"{_EMA_STEM}.safetensors")
    _save_file(moments, partial / "optimizer.safetensors")
    (partial / "progress.json").write_text(json.dumps(asdict(progress)))
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes


def saved_steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def stored_weights(module: nn.Module, folder: Path, step: int) -> dict[str, nn.Parameter]:
    """The weights of `module` that train or are in a checkpoint: earlier releases trained some that are frozen now."""
    names = _weight_names(folder, step)
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad or name in names}


def _weight_names(folder: Path, step: int) -> set[str]:
    path = folder / f"step-{step:08d}" / "weights.safetensors"
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def load_weights(folder: Path, step: int, weights: Mapping[str, nn.Parameter], use_ema: bool = False) -> Progress:
    """Copy a checkpoint's weights into `weights`, in place; UserError where names or shapes differ.

    With `use_ema` the EMA weights, if the run has them, else the raw weights, from which training resumes. A decoder is
    loaded only where `weights` has one.
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
        record = json.loads((step_folder / "progress.json").read_text(encoding="utf-8"))
        return Progress(**{**record, "norms": tuple(record.get("norms", ()))})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(step_folder / "progress.json", error) from error


@dataclass(frozen=True)
class OpenedRun:
    """A run's configuration, and its student with the weights of checkpoint `step`."""

    config: RunConfig
    step: int
    student: StudentEncoder
    tokenizer: PreTrainedTokenizerFast


def open_run(run: Path, step: int | None) -> OpenedRun:
    """The student of `run` at `step`, or at its newest checkpoint, as it is trained, with EMA weights if there are."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run}: no config.yaml there; name the out_dir of a run")
    config = read_stored_config(run / "config.yaml")
    saved = saved_steps(run / "checkpoints")
    if not saved:
        raise UserError(f"--run {run}: no checkpoint yet; train it first")
    if step is not None and step not in saved:
        raise UserError(f"--step {step}: {run} has checkpoints {', '.join(map(str, saved))}")
    kind = config.student.kind
    tokenizer = kind.load_tokenizer(run / "tokenizer", "--run")
    student = kind.build(config.load_teacher(), tokenizer, None, on_cpu=True)
    loaded_step = saved[-1] if step is None else step
    weights = stored_weights(student, run / "checkpoints", loaded_step)
    load_weights(run / "checkpoints", loaded_step, weights, use_ema=True)
    return OpenedRun(config, loaded_step, student, tokenizer)


def open_decoder(run: Path, opened: OpenedRun) -> Decoder:
    """The decoder of an opened run, in evaluation mode; UserError where it has none."""
    translation = opened.config.losses.translation
    if translation is None:
        raise UserError(f"--run {run}: has no decoder; train one with losses.translation")
    decoder, folder = translation.build_decoder(opened.student), run / "checkpoints"
    own = {DECODER + name: weight for name, weight in trainable(decoder).items()}
    load_weights(folder, opened.step, {**stored_weights(opened.student, folder, opened.step), **own}, use_ema=True)
    decoder.eval()
    return decoder


def load_ema(folder: Path, step: int, ema_weights: Mapping[str, torch.Tensor]) -> None:
    """Copy a checkpoint's EMA weights into `ema_weights`, in place."""
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
        # Fused AdamW needs its whole state on the weight's device, the step counter too.
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
