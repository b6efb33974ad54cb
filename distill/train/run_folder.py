"""A run's folder belongs to one configuration, written into it first.

The student of a run's folder.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.student.base import StudentEncoder
from distill.student.extended import ExtendedConfig
from distill.text_tower import StateLayer
from distill.train import checkpoint
from distill.train.config import ResolvedConfig, RunConfig, StudentConfig, TrainConfig, parse_config

# What may change when a run goes on.
_CHANGEABLE = (
    "recompute",
    "accumulate",
    "compile",
    "shard",
    "log_every",
    "eval_every",
    "save_every",
    "keep",
    "trackers",
)


def claim_run_dir(folder: Path, resolved: ResolvedConfig) -> None:
    """Write config.yaml into `folder`, or check that the one there asks for the same training.

    A folder without a checkpoint is claimed anew, so that a mistake found after the claim can be mended in place.
    """
    path = folder / "config.yaml"
    if path.is_file():
        stored = _flattened(asdict(_weight_affecting(parse_config(["--config", str(path)]).run)))
        requested = _flattened(asdict(_weight_affecting(resolved.run)))
        changed_keys = [
            key for key in {**requested, **stored} if requested.get(key, "absent") != stored.get(key, "absent")
        ]
        if changed_keys and checkpoint.saved_steps(folder / "checkpoints"):
            key = changed_keys[0]
            raise UserError(
                f"{key}: {requested.get(key, 'absent')!r} here, {stored.get(key, 'absent')!r} in {path}; "
                "give the same, or another --out_dir"
            )
        if changed_keys:  # nothing was trained yet: the mended configuration starts afresh
            shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"out_dir: {folder} holds other things and no config.yaml; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(resolved.yaml, encoding="utf-8")
    partial.replace(path)


def _weight_affecting(run: RunConfig) -> RunConfig:
    """`run` without what has no say in the weights."""
    default = TrainConfig()
    free = {name: getattr(default, name) for name in _CHANGEABLE}
    kind = run.student if run.student != StudentConfig() else StudentConfig(extended=ExtendedConfig())
    data, train = replace(run.data, token_store=None), replace(run.train, **free)
    return replace(run, student=kind, out_dir=Path(), train=train, data=data)


def _flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        leaves.update(_flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return leaves


@dataclass(frozen=True)
class Student:
    """A trained student as plain transformers objects: float32, on the CPU, in evaluation mode."""

    model: CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerFast
    state_layer: StateLayer = "last"
    """Which of its states the UNet reads."""


@dataclass(frozen=True)
class OpenedRun:
    """A run's configuration, and its student as it is trained, with the weights of checkpoint `step`."""

    config: RunConfig
    step: int
    student: StudentEncoder
    tokenizer: PreTrainedTokenizerFast


def load_run(run: Path, step: int | None = None) -> Student:
    """The student of `run` at `step`, or at its newest checkpoint."""
    opened = open_run(run, step)
    return Student(opened.student.to_clip(), opened.tokenizer, opened.config.states)


def read_config(run: Path) -> RunConfig:
    """The configuration of `run`."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run}: no config.yaml there; name the out_dir of a run")
    return parse_config(["--config", str(run / "config.yaml")]).run


def open_run(run: Path, step: int | None) -> OpenedRun:
    """The student of `run` at `step`, or at its newest checkpoint, ready to be trained or asked."""
    config = read_config(run)
    saved = checkpoint.saved_steps(run / "checkpoints")
    if not saved:
        raise UserError(f"--run {run}: no checkpoint yet; train it first")
    if step is not None and step not in saved:
        raise UserError(f"--step {step}: {run} has checkpoints {', '.join(map(str, saved))}")
    kind = config.student.kind
    tokenizer = kind.load_tokenizer(run / "tokenizer", "--run")
    student = kind.build(config.load_teacher(), tokenizer, translations={}, on_cpu=True)
    chosen = saved[-1] if step is None else step
    checkpoint.load_weights(run / "checkpoints", chosen, checkpoint.trainable(student), use_ema=True)
    return OpenedRun(config, chosen, student, tokenizer)
