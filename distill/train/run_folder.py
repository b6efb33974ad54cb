"""A run's folder belongs to one configuration, which is written first."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from data.cli import UserError
from data.files import write_text
from distill.distributed import resolve_precision
from distill.student.extended import ExtendedConfig
from distill.train import checkpoint
from distill.train.config import ResolvedConfig, RunConfig, StudentConfig, TrainConfig, read_stored_config

# Settings that do not affect the weights, and may change when a run is resumed.
_CHANGEABLE = (
    "recompute", "tokens_at_once", "compile", "shard", "log_every", "eval_every", "save_every", "keep", "trackers",
)  # fmt: skip
_OF_TOKENIZER = ("teacher", "padding", "student.", "data.corpus")


def with_precision(run: RunConfig, device: torch.device) -> RunConfig:
    """`run` with `train.precision: auto` resolved: as its folder has it, where it is resumed, else for `device`."""
    path, precision = run.out_dir / "config.yaml", run.train.precision
    if precision == "auto" and path.is_file() and checkpoint.saved_steps(run.out_dir / "checkpoints"):
        precision = read_stored_config(path).train.precision
    return replace(run, train=replace(run.train, precision=resolve_precision(precision, device)))


def claim_run_dir(folder: Path, resolved: ResolvedConfig) -> None:
    """Write config.yaml into `folder`; UserError where the one there trains other weights.

    A folder without a checkpoint is claimed anew, so that a mistake found after the claim can be fixed in place.
    """
    path = folder / "config.yaml"
    if path.is_file():
        stored = _flattened(asdict(_weight_affecting(read_stored_config(path))))
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
        if any(key.startswith(_OF_TOKENIZER) for key in changed_keys):  # nothing was trained yet
            shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"out_dir: {folder} holds other things and no config.yaml; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(resolved.yaml, path)


def _weight_affecting(run: RunConfig) -> RunConfig:
    """`run` with defaults for everything that does not affect the weights."""
    default = TrainConfig()
    unused = {name: getattr(default, name) for name in _CHANGEABLE}
    kind = run.student if run.student != StudentConfig() else StudentConfig(extended=ExtendedConfig())
    data, train = replace(run.data, token_store=None), replace(run.train, **unused)
    return replace(run, student=kind, out_dir=Path(), train=train, data=data)


def _flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        leaves.update(_flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return leaves
