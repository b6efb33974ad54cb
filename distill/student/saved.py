"""The student of a run's folder, as plain transformers objects."""

from dataclasses import dataclass
from pathlib import Path

from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from data.command import UserError
from distill import checkpoint, tower
from distill.config import parse
from distill.student.build import build_student


@dataclass(frozen=True)
class Student:
    """A trained student: float32, on the CPU, in evaluation mode."""

    model: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer


def load_run(run: Path, step: int | None = None) -> Student:
    """The student of `run` at `step`, or at its newest checkpoint."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run}: no config.yaml there; name the out_dir of a run")
    config = parse(["--config", str(run / "config.yaml")]).run
    saved = checkpoint.steps(run / "checkpoints")
    if not saved:
        raise UserError(f"--run {run}: no checkpoint yet; train it first")
    if step is not None and step not in saved:
        raise UserError(f"--step {step}: {run} has checkpoints {', '.join(map(str, saved))}")
    tokenizer = tower.load_tokenizer(str((run / "tokenizer").absolute()), "--run")
    student = build_student(config.student.extended, config.teacher, tokenizer, senses={}, on_cpu=True)
    checkpoint.load_weights(run / "checkpoints", saved[-1] if step is None else step, checkpoint.trainable(student))
    return Student(model=student.stock(), tokenizer=tokenizer)
