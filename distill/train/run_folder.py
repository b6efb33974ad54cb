"""A run's folder belongs to one configuration, which is written first."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from data.cli import UserError
from data.files import atomic_folder, write_text
from distill.distributed import resolve_precision
from distill.loading import base_model, load_clip_tokenizer
from distill.student.extended import ExtendedConfig, Graft, load_graft
from distill.text_tower import Pretrained
from distill.train import checkpoint
from distill.train.config import RunConfig, StudentConfig, TrainConfig, read_stored_config

# Settings that do not affect the weights, and may change when a run is resumed.
_CHANGEABLE = (
    "recompute", "tokens_at_once", "compile", "shard", "log_every", "eval_every", "save_every", "keep", "trackers",
)  # fmt: skip
_OF_TOKENIZER = ("teacher", "padding", "init", "student.", "data.corpus")


def with_precision(run: RunConfig, device: torch.device) -> RunConfig:
    """`run` with `train.precision: auto` resolved: as its folder has it, where it is resumed, else for `device`."""
    path, precision = run.out_dir / "config.yaml", run.train.precision
    if precision == "auto" and path.is_file() and checkpoint.saved_steps(run.out_dir / "checkpoints"):
        precision = read_stored_config(path).train.precision
    return replace(run, train=replace(run.train, precision=resolve_precision(precision, device)))


def claim_run_dir(folder: Path, run: RunConfig) -> None:
    """Write config.yaml into `folder`; UserError where the one there trains other weights.

    A folder without a checkpoint is claimed anew, so that a mistake found after the claim can be fixed in place.
    """
    path = folder / "config.yaml"
    if path.is_file():
        stored = _flattened(asdict(_weight_affecting(read_stored_config(path))))
        requested = _flattened(asdict(_weight_affecting(run)))
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
    write_text(run.to_yaml(), path)


def student_tokenizer_of(run: RunConfig, teacher: Pretrained) -> PreTrainedTokenizerFast:
    """The tokenizer in a run's folder, where it is written first: another student's, or one made on the corpus."""
    folder, kind = run.out_dir / "tokenizer", run.student.kind
    if not folder.is_dir():
        if source := str(run.first_encoder / "tokenizer") if run.first_encoder else run.init:
            key = "first_encoder" if run.first_encoder else "init"
            copied = load_clip_tokenizer(source, key, pad_token=str(teacher.tokenizer.pad_token))
            if run.init and load_clip_tokenizer(run.init, "init").get_vocab() != copied.get_vocab():
                raise UserError(f"init: {run.init!r} has other tokens than {source}; graft both of one student")
            with atomic_folder(folder) as partial:
                copied.save_pretrained(partial)
        else:
            print(f"making the student's tokenizer on {run.data.corpus}", flush=True)
            kind.build_tokenizer(teacher, run.data.corpus, folder)
    return kind.load_tokenizer(folder, "out_dir")


def read_graft(run: RunConfig, teacher: Pretrained) -> Graft | None:
    """What a run that has not begun takes over from `init`; a checkpoint holds it from then on."""
    if run.init is None or checkpoint.saved_steps(run.out_dir / "checkpoints"):
        return None
    return load_graft(run.init, run.init_teacher or base_model(run.init, "init_teacher"), teacher)


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
