"""`python scripts/benchmark.py train --config FILE.yaml`: the run of a configuration, with its losses, on this device.

On a GPU with the batch of the configuration; on a CPU with a smaller one, which the result names. Weights are those of
`--teacher`; with `--shape` they are random, in a published size, and a UNet geometry that is not there is random too:
the cost is the same.
"""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from jsonargparse import ArgumentParser
from torch.testing._internal.distributed.fake_pg import FakeStore
from tqdm import trange

from data.cli import UserError, load_yaml
from data.files import write_json
from distill.distributed import Precision, resolve_precision
from distill.geometry import CrossAttention, Geometry, kv_quadratic_form
from distill.loading import load_clip_tokenizer
from distill.train.config import RunConfig, parse_config
from distill.train.main import make_accelerator
from distill.train.setup import TrainSetup, build_setup, compiles, prepare_run
from distill.train.trainer import Trainer
from distill.unet_geometry import write_geometry
from eval.speed.measure import (
    LaunchCounter,
    Shape,
    count_tokens,
    machine,
    peak_flops,
    random_teacher,
    step_flops,
    timed,
    use_device,
)

CPU_BATCH_SIZE = 32
PROJECTED_PAIRS = {"41 M pairs": 41e6, "150 M pairs": 150e6}
SD15_ATTENTIONS = (320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320)
"""Inner widths of the cross-attentions of Stable Diffusion 1.x and 2.x."""


@dataclass(frozen=True)
class ShippedRunOptions:
    """The command line.

    Args:
        config: A run's configuration.
        corpus: A corpus that data.build wrote.
        teacher: Folder or Hub id of the teacher; by default the configuration's; with --shape only its tokenizer.
        shape: Random weights of a published size instead of the teacher's.
        batch_size: Pairs in a step; by default the configuration's on a GPU, 32 on a CPU.
        steps: Measured steps; steps * train.full_share must be whole.
        launches: Also count the kernel launches and all_reduces of a padded and a max-length step, of 8 processes.
        options: More options of the run, such as --train.compile=true.
        device: cpu, cuda ...; by default the accelerator where there is one.
        precision: auto, bf16 or fp32; by default the configuration's.
        work: Folder of the run and of result.json.
    """

    config: Path
    corpus: Path
    teacher: str | None = None
    shape: Shape | None = None
    batch_size: int | None = None
    steps: int = 4
    launches: bool = False
    options: list[str] = field(default_factory=list)
    device: str | None = None
    precision: Precision | None = None
    work: Path = Path("runs/benchmark-train")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write `result.json` into the working folder."""
    parser = ArgumentParser(prog="benchmark.py train", description=__doc__, exit_on_error=False)
    parser.add_class_arguments(ShippedRunOptions, as_positional=False, skip={"batch_size"})
    parser.add_argument(
        "--batch-size", type=int | None, help="pairs in a step; by default the configuration's, CPU: 32"
    )
    options = ShippedRunOptions(**vars(parser.parse_args(arguments)))
    result = measure_run(options)
    write_json(result, options.work / "result.json")
    print(json.dumps(result, indent=1, ensure_ascii=False))


def measure_run(options: ShippedRunOptions) -> dict[str, Any]:
    """Speed, memory and projected hours of the run."""
    use_device(options.device)
    shipped_size = load_yaml(options.config, "--config").get("train", {}).get("batch_size", 512)
    config = run_config(options, shipped_size)
    share = config.train.full_share
    if options.steps < 1 or abs(options.steps * share % 1) > 1e-9:
        raise UserError(f"--steps {options.steps}: steps * train.full_share ({share}) must be whole")
    accelerator = make_accelerator(config)
    prepared = prepare_run(config, 1)
    setup = build_setup(config, accelerator, prepared.store, prepared.pretrained)
    trainer = Trainer(setup, config.train, accelerator, options.work)
    precision = resolve_precision(config.train.precision, accelerator.device)
    for step in range(options.steps):  # caches, compilation, optimizer state
        trainer.step(step, setup.loader)
    steps = range(options.steps, 2 * options.steps)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: [trainer.step(step, setup.loader) for step in trange(len(steps), desc="steps")])
    batches = [setup.loader[step] for step in steps]
    eos_ids = setup.teacher_vocabulary.eos_id, setup.task.student.vocabulary.eos_id
    flops = sum(step_flops(prepared.pretrained.model.config, batch, *eos_ids) for batch in batches)
    pairs_per_second = len(steps) * config.train.batch_size / seconds
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {
            "config": str(options.config), "teacher": options.shape or config.teacher, "precision": precision,
            "batch size": {"configuration": shipped_size, "measured": config.train.batch_size},
            "full share": share, "steps": len(steps), "compile": compiles(config.train.compile, accelerator.device),
            "losses": [type(loss).__name__ for loss in config.losses.enabled],
        },
        "pairs a second": round(pairs_per_second, 2),
        "tokens a second": round(sum(count_tokens(batch, *eos_ids) for batch in batches) / seconds),
        "MFU": round(flops / seconds / peak_flops(precision), 3),
        "peak memory, GiB": _peak_memory(accelerator.device) | _expected_memory(setup, config),
        "hours": {name: round(pairs / pairs_per_second / 3600, 1) for name, pairs in PROJECTED_PAIRS.items()},
    }  # fmt: skip
    if options.launches:
        result["launches"] = {
            "max-length step" if setup.loader[step].padded_to_max else "padded step": count_launches(trainer, step)
            for step in steps
        }
    return result


def run_config(options: ShippedRunOptions, shipped_size: int) -> RunConfig:
    """The configuration of the run, with what the options replace."""
    tree = load_yaml(options.config, "--config")
    teacher = options.teacher or str(tree.get("teacher"))
    values: dict[str, object] = {"out_dir": options.work / "run", "data.corpus": options.corpus}
    geometry = (tree.get("losses") or {}).get("unet_geometry")
    if options.shape is not None:
        teacher = random_teacher(options.shape, load_clip_tokenizer(teacher, "--teacher"), options.work)
        if geometry and not Path(geometry).is_file():
            width = int(json.loads((Path(teacher) / "config.json").read_text(encoding="utf-8"))["hidden_size"])
            geometry = options.work / "geometry.safetensors"
            write_geometry(random_geometry(width), geometry, {"unet": "random"})
            values["losses.unet_geometry"] = geometry
    if options.precision:
        values["train.precision"] = options.precision
    on_cpu = PartialState().device.type == "cpu"
    values |= {
        "teacher": teacher,
        "train.batch_size": options.batch_size or (CPU_BATCH_SIZE if on_cpu else shipped_size),
    }
    overrides = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    return parse_config(["--config", str(options.config), *overrides, *options.options])


def random_geometry(width: int, queries: int = 64) -> Geometry:
    """A geometry in the size of Stable Diffusion 1.x and 2.x for states of `width`, with random maps."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        scale: float = shape[-1] ** -0.5
        return torch.randn(*shape, generator=generator) * scale

    layers = tuple(
        CrossAttention(str(number), 8, (inner // 8) ** -0.5, random(queries, inner), random(inner, width),
                       random(inner, width))
        for number, inner in enumerate(SD15_ATTENTIONS)
    )  # fmt: skip
    return Geometry(kv_quadratic_form([weight for layer in layers for weight in (layer.key, layer.value)]), layers)


def count_launches(trainer: Trainer, step: int) -> dict[str, int]:
    """Kernel launches, all_reduces, and those of few values, of one step as one of eight processes."""
    with fake_processes(8), LaunchCounter() as counter:
        trainer.step(step, trainer.setup.loader)
    return {
        "kernels": counter.kernels.total(), "all_reduces": counter.all_reduces,
        "scalar all_reduces": counter.scalar_all_reduces,
    }  # fmt: skip


@contextmanager
def fake_processes(count: int) -> Iterator[None]:
    """Make this process the first of `count` whose collectives return at once; for counting, not for results."""
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def _expected_memory(setup: TrainSetup, config: RunConfig) -> dict[str, float]:
    """What distill/train/memory.py expects on a GPU, for the measured batch, where it covers the student."""
    expected = setup.expected_memory(config, 1)
    return {"expected on a GPU": round(expected["peak"] / 2**30, 2)} if expected else {}


def _peak_memory(device: torch.device) -> dict[str, float]:
    """Of the measured steps on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return {"allocated": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)}
    return {"resident, whole process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}
