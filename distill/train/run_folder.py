"""A run's folder belongs to one configuration, written into it first.

The student of a run's folder.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.student.base import StudentTower
from distill.student.build import build_student, load_student_tokenizer
from distill.student.extended import ExtendedConfig
from distill.text_tower import StateLayer
from distill.train import checkpoint
from distill.train.config import ResolvedConfig, RunConfig, StudentConfig, TrainConfig, parse

# What may change when a run goes on.
_FREE = ("recompute", "accumulate", "compile", "shard", "log_every", "eval_every", "save_every", "keep", "trackers")


def claim(folder: Path, resolved: ResolvedConfig) -> None:
    """Write config.yaml into `folder`, or check that the one there asks for the same training.

    A folder without a checkpoint is claimed anew, so that a mistake found after the claim can be mended in place.
    """
    path = folder / "config.yaml"
    if path.is_file():
        found = _flat(asdict(_training(parse(["--config", str(path)]).run)))
        wanted = _flat(asdict(_training(resolved.run)))
        other = [key for key in {**wanted, **found} if wanted.get(key, "absent") != found.get(key, "absent")]
        if other and checkpoint.steps(folder / "checkpoints"):
            key = other[0]
            raise UserError(
                f"{key}: {wanted.get(key, 'absent')!r} here, {found.get(key, 'absent')!r} in {path}; "
                "give the same, or another --out_dir"
            )
        if other:  # nothing was trained yet: the mended configuration starts afresh
            shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"out_dir: {folder} holds other things and no config.yaml; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(resolved.yaml, encoding="utf-8")
    partial.replace(path)


def _training(run: RunConfig) -> RunConfig:
    """`run` without what has no say in the weights."""
    default = TrainConfig()
    free = {name: getattr(default, name) for name in _FREE}
    kind = run.student if run.student != StudentConfig() else StudentConfig(extended=ExtendedConfig())
    data, train = replace(run.data, token_store=None), replace(run.train, **free)
    return replace(run, student=kind, out_dir=Path(), train=train, data=data)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        leaves.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return leaves


@dataclass(frozen=True)
class Student:
    """A trained student as plain transformers objects: float32, on the CPU, in evaluation mode."""

    model: CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerFast
    states: StateLayer = "last"
    """Which of its states the UNet reads."""


@dataclass(frozen=True)
class OpenedRun:
    """A run's configuration, and its student as it is trained, with the weights of checkpoint `step`."""

    config: RunConfig
    step: int
    student: StudentTower
    tokenizer: PreTrainedTokenizerFast


def load_run(run: Path, step: int | None = None) -> Student:
    """The student of `run` at `step`, or at its newest checkpoint."""
    opened = open_run(run, step)
    return Student(opened.student.stock(), opened.tokenizer, opened.config.states)


def read_config(run: Path) -> RunConfig:
    """The configuration of `run`."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run}: no config.yaml there; name the out_dir of a run")
    return parse(["--config", str(run / "config.yaml")]).run


def open_run(run: Path, step: int | None) -> OpenedRun:
    """The student of `run` at `step`, or at its newest checkpoint, ready to be trained or asked."""
    config = read_config(run)
    saved = checkpoint.steps(run / "checkpoints")
    if not saved:
        raise UserError(f"--run {run}: no checkpoint yet; train it first")
    if step is not None and step not in saved:
        raise UserError(f"--step {step}: {run} has checkpoints {', '.join(map(str, saved))}")
    kind = config.student.kind
    tokenizer = load_student_tokenizer(kind, run / "tokenizer", "--run")
    student = build_student(kind, config.load_teacher(), tokenizer, senses={}, on_cpu=True)
    chosen = saved[-1] if step is None else step
    checkpoint.load_weights(run / "checkpoints", chosen, checkpoint.trainable(student), to_use=True)
    return OpenedRun(config, chosen, student, tokenizer)
