"""A run's folder belongs to one configuration, written into it first."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data.command import UserError
from distill import checkpoint
from distill.config import ResolvedConfig, RunConfig, StudentConfig, TrainConfig, parse
from distill.student.extended import ExtendedConfig

# What may change when a run goes on.
_FREE = ("recompute", "accumulate", "compile", "shard", "log_every", "eval_every", "save_every", "keep", "trackers")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder for this process alone; the lock goes with the process, however it ends.

    The lock lies beside the folder, so that a folder of something else stays as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"out_dir: another process trains in {folder}; wait for it, stop it, or name another folder"
            ) from error
        yield


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
