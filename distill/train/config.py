"""A run's whole configuration: frozen dataclasses, read from YAML with dotted overrides on the command line."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentParser

from data.cli import Tree, UserError, checked_config, load_yaml, merged, overridden
from data.loader.mixture import MixtureConfig
from distill.distributed import Precision
from distill.losses import LossesConfig
from distill.single_file import unpacked
from distill.student.extended import ExtendedConfig
from distill.student.multilingual import MultilingualConfig
from distill.student.xlmr import XlmrConfig
from distill.text_tower import Pretrained, StateLayer, load_pretrained

T = TypeVar("T")


@dataclass(frozen=True)
class StudentConfig:
    """The kind of student by its key; `extended` where there is none."""

    extended: ExtendedConfig | None = None
    multilingual: MultilingualConfig | None = None
    xlmr: XlmrConfig | None = None

    def __post_init__(self) -> None:
        if sum(kind is not None for kind in (self.extended, self.multilingual, self.xlmr)) > 1:
            raise ValueError("student: give one kind: extended, multilingual or xlmr")

    @property
    def kind(self) -> ExtendedConfig | MultilingualConfig | XlmrConfig:
        """The configured kind."""
        return self.multilingual or self.xlmr or self.extended or ExtendedConfig()


@dataclass(frozen=True)
class DataConfig:
    """The corpus and how it is sampled."""

    corpus: Path
    """A folder that `python -m data.build` wrote."""
    token_store: Path | None = None
    """Folder of the tokenised corpus; null: below `out_dir`. Runs on one corpus may share it."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    window: int = 32
    """Steps whose pairs are sampled together and sorted by length."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"data.window: {self.window} is below 1")


_COUNTS = ("steps", "batch_size", "english_every", "tokens_at_once", "log_every", "eval_every", "save_every", "keep")


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    steps: int = 1000
    batch_size: int = 512
    """Pairs in a step, over all processes."""
    full_share: float = 0.25
    """Share of steps padded to the maximum length, as for Stable Diffusion; the others are padded dynamically."""
    clip_skip: float = 0.0
    """Share of steps whose losses look at the states before the last layer, through the final norm, as a UNet of Stable
    Diffusion 1.x reads them under clip skip."""
    english_every: int = 4
    """The student encodes the English of every n-th pair."""
    lr: float = 4e-4
    embedding_lr: float = 5e-4
    """Of the token embeddings. A word starts at the rows of its translation; a higher rate loses that start."""
    warmup: int = 50
    final_lr: float = 0.01
    """Where the cosine ends, as a share of the peak."""
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Precision = "auto"
    """auto: bf16 where the device has products in bf16, else fp32; a run keeps what it started with."""
    tokens_at_once: int | None = None
    """Token positions, padding included, whose activations a process keeps at once; null: all of its share. A larger
    step is computed in chunks: less memory, one forward pass more, the same gradients (gradient caching)."""
    recompute: bool = False
    """Recompute the layers' activations in the backward pass instead of keeping them: less memory, more time."""
    compile: bool | Literal["auto"] = "auto"
    """Compile both towers with torch.compile, minutes at the start; auto: on CUDA, where Triton is installed."""
    shard: bool = False
    """Shard weights, gradients and moments over the processes (FSDP2) instead of keeping all on each."""
    bf16_gradients: bool = False
    """Send gradients between processes in bf16: half the traffic, for slow networks; not for `shard`."""
    ema: float | None = None
    """Decay of an exponential mean of the weights, such as 0.999, which is then evaluated and exported; null: none."""
    spike: float | None = None
    """Skip steps whose gradient norm lies this many robust deviations above the last 128, such as 8; null: none."""
    seed: int = 0
    log_every: int = 10
    eval_every: int = 200
    save_every: int = 200
    keep: int = 2
    """Number of newest checkpoints to keep."""
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = field(default_factory=list)
    """Accelerate's trackers that log the metrics too."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"train.{name}: {value} is below 1")
        for name in ("lr", "embedding_lr", "warmup", "final_lr", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name}: {getattr(self, name)} is below 0")
        if self.clip_norm <= 0:
            raise ValueError(f"train.clip_norm: {self.clip_norm} is not above 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"train.ema: {self.ema} is not between 0 and 1")
        if self.spike is not None and self.spike <= 0:
            raise ValueError(f"train.spike: {self.spike} is not above 0")
        for name in ("full_share", "clip_skip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name}: {getattr(self, name)} is not between 0 and 1")


@dataclass(frozen=True)
class RunConfig:
    """One distillation run."""

    teacher: str
    """Folder or Hub id of a CLIP model: text tower, projection, tokenizer."""
    data: DataConfig
    out_dir: Path
    states: StateLayer = "last"
    """The teacher's states that a UNet reads: last (SD 1.x), penultimate_normed (SD 2.x), penultimate (SDXL)."""
    padding: str | None = None
    """The padding token of the UNet's pipeline ('!' in SD 2.x); null: the teacher tokenizer's."""
    first_encoder: Path | None = None
    """SDXL: the finished run of the first encoder, CLIP L, whose second this run teaches: its Chinese tokens are taken
    over, and losses.readout sees the states of both side by side. `stages` sets it."""
    init: str | None = None
    """A finished student, exported folder or Hub id, whose Chinese is grafted onto `teacher`, such as the encoder of a
    fine-tuned checkpoint: its tokens and their rows, and what it learned over its own teacher."""
    init_teacher: str | None = None
    """That own teacher; null: the base model that the card of `init` names."""
    student: StudentConfig = field(default_factory=StudentConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.init is None and self.init_teacher is not None:
            raise ValueError("init_teacher: is the teacher of `init`, and there is no init; give both")
        if self.init is not None and not isinstance(self.student.kind, ExtendedConfig):
            raise ValueError("init: the Chinese of a finished student grafts onto an `extended` student alone")
        if self.train.clip_skip and (self.states != "last" or self.student.xlmr):
            raise ValueError("train.clip_skip: is for CLIP students of Stable Diffusion 1.x, whose states are the last")

    def load_teacher(self) -> Pretrained:
        """The teacher, unchanged."""
        return load_pretrained(self.teacher, self.states, self.padding)

    def to_yaml(self) -> str:
        """The YAML that parses to it; keys that earlier releases do not know are left out where they are off."""
        tree = _plain(asdict(self))
        starts = [(tree, "first_encoder"), (tree, "init"), (tree, "init_teacher")]
        for part, key in (*starts, (tree["losses"], "similarity"), (tree["train"], "clip_skip")):
            if not part[key]:
                del part[key]
        return yaml.safe_dump(tree, sort_keys=False)


def parse_config(arguments: Sequence[str] | None = None) -> RunConfig:
    """Read `--config FILE.yaml` and dotted overrides, later ones first; UserError names the key that is wrong."""
    return checked_run(read_options(arguments))


def read_options(arguments: Sequence[str] | None = None) -> Tree:
    """The keys of `--config FILE.yaml` and of dotted overrides, unchecked."""
    tree = Tree()
    for option, value in _options(sys.argv[1:] if arguments is None else arguments):
        if option == "config":
            tree = merged(tree, load_yaml(Path(value), "--config"), RunConfig)
        else:
            tree = overridden(tree, option, value)
    return tree


def checked_run(tree: Tree) -> RunConfig:
    """The run of a tree of keys; UserError names the key that is wrong."""
    return _with_absolute_paths(checked_config(tree, RunConfig))


def read_stored_config(path: Path) -> RunConfig:
    """The config.yaml of a run's folder; keys of earlier releases that do not affect the weights are dropped."""
    tree = load_yaml(path, "--config")
    if isinstance(train := tree.get("train"), dict):
        train.pop("accumulate", None)
    if isinstance(data := tree.get("data"), dict) and isinstance(data.get("mixture"), dict):
        data["mixture"].setdefault("max_epochs", None)  # as it was drawn then
    return checked_config(tree, RunConfig)


def _with_absolute_paths(run: RunConfig) -> RunConfig:
    # Absolute, so that the run's folder can be used from anywhere.
    teacher = _local_model(run.teacher, "teacher") or run.teacher
    init, init_teacher = _local_model(run.init, "init"), _local_model(run.init_teacher, "init_teacher")
    run = replace(run, teacher=teacher, init=init, init_teacher=init_teacher)
    data = replace(run.data, corpus=_absolute(run.data.corpus), token_store=_absolute(run.data.token_store))
    losses = replace(run.losses, unet_geometry=_absolute(run.losses.unet_geometry))
    return replace(
        run, data=data, losses=losses, out_dir=_absolute(run.out_dir), first_encoder=_absolute(run.first_encoder)
    )


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and value of `--name value` and `--name=value`; --help prints and exits."""
    if {"-h", "--help"} & set(arguments):
        parser = ArgumentParser(prog="distill", description="Teach a CLIP text tower Chinese.")
        parser.add_argument("--config", help="a YAML file; later options override it")
        parser.add_class_arguments(RunConfig)
        parser.print_help()
        sys.exit()
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            raise UserError(f"{argument}: not an option; write --KEY VALUE; --help lists the keys")
        text = value if equals else next(remaining, None)
        if text is None:
            raise UserError(f"{argument}: no value; write {argument} VALUE")
        yield name, text


def _local_model(model: str | None, key: str) -> str | None:
    """The name of a model, absolute where it is a folder and no Hub id; the folder of a checkpoint in one file."""
    name = model and unpacked(model, key)
    return str(folder.absolute()) if name and (folder := Path(name).expanduser()).is_dir() else name


def _absolute(path: T) -> T:
    return path.expanduser().absolute() if isinstance(path, Path) else path


def _plain(value: Any) -> Any:  # noqa: ANN401  any YAML
    """`value` with paths as text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, Path) else value
