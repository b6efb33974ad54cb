"""A run's whole configuration: frozen dataclasses, read from YAML with dotted overrides on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from data.command import UserError
from data.mixture import MixtureConfig
from distill.losses import LossesConfig
from distill.student.extended import ExtendedConfig


@dataclass(frozen=True)
class StudentConfig:
    """Which student; the key names the kind."""

    extended: ExtendedConfig = field(default_factory=ExtendedConfig)


@dataclass(frozen=True)
class DataConfig:
    """What the student learns from."""

    corpus: Path
    """A folder that `python -m data.build` wrote."""
    token_store: Path | None = None
    """Where the tokenised corpus is kept; null: below `out_dir`. Runs on one corpus may share it."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    window: int = 32
    """Steps whose pairs are drawn together and sorted by length."""


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 1000
    batch_size: int = 512
    """Pairs in a step, over all processes."""
    full_share: float = 0.25
    """Share of steps on all 77 slots, as Stable Diffusion reads them; the others are tight."""
    english_every: int = 4
    """The student reads the English of every n-th pair."""
    lr: float = 4e-4
    embedding_lr: float = 2e-3
    warmup: int = 50
    final_lr: float = 0.01
    """Where the cosine ends, as a share of the peak."""
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0
    log_every: int = 10
    eval_every: int = 200
    save_every: int = 200
    keep: int = 2
    """Newest checkpoints that stay."""
    trackers: list[str] = field(default_factory=list)
    """Of accelerate: tensorboard, trackio, wandb."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for name in ("steps", "batch_size", "english_every", "log_every", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}: {getattr(self, name)} is below 1")
        if not 0 <= self.full_share <= 1:
            raise ValueError(f"train.full_share: {self.full_share} is not between 0 and 1")


@dataclass(frozen=True)
class RunConfig:
    """One distillation run."""

    teacher: str
    """Folder or Hub id of a CLIP model: text tower, projection, tokenizer."""
    data: DataConfig
    out_dir: Path
    student: StudentConfig = field(default_factory=StudentConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class ResolvedConfig:
    """A parsed configuration and the YAML that gives it again."""

    run: RunConfig
    yaml: str


def parse(arguments: Sequence[str] | None = None) -> ResolvedConfig:
    """Read `--config FILE.yaml` and dotted overrides; an unknown key or a value out of range is a `UserError`."""
    parser = ArgumentParser(prog="distill", description="Teach a CLIP text tower Chinese.", exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file; later options win over it")
    parser.add_class_arguments(RunConfig)
    parsed: Namespace = parser.parse_args(arguments)
    del parsed["config"]
    # Absolute, so that the run's folder can be used from anywhere.
    if Path(parsed["teacher"]).is_dir():
        parsed["teacher"] = str(Path(parsed["teacher"]).absolute())
    for key in ("data.corpus", "out_dir"):
        parsed[key] = parsed[key].absolute()
    yaml = parser.dump(parsed, skip_none=False)
    try:
        run = RunConfig(**vars(parser.instantiate(parsed)))
    except ValueError as error:
        raise UserError(str(error)) from error
    return ResolvedConfig(run=run, yaml=yaml)
