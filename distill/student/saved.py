"""The student of a run's folder."""

from dataclasses import dataclass
from pathlib import Path

from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.command import UserError
from distill import checkpoint
from distill.config import RunConfig, parse
from distill.student.build import build_student, load_student_tokenizer
from distill.student.kind import StudentTower
from distill.tower import StateLayer


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
