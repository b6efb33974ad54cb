"""`python scripts/benchmark.py train`: what a training step costs, against padding everything and against a peer.

Every ratio is between two measurements that alternate in the same run, round by round: the median of the rounds and
their range. A step is loader, teacher, student, losses and optimizer.
"""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm
from transformers import CLIPTextConfig

from data.cli import UserError
from data.files import write_json
from data.loader.batches import BatchDataset, BatchSchedule
from data.loader.mixture import mixture_stages
from data.loader.token_store import TokenStore
from distill.distributed import Precision
from distill.loading import load_clip_tokenizer
from distill.train.batch import BatchLoader
from distill.train.config import RunConfig, parse_config
from distill.train.main import make_accelerator
from distill.train.run_folder import with_precision
from distill.train.setup import build_setup, prepare_run
from distill.train.trainer import Trainer
from eval.speed import measure
from eval.speed.measure import Shape, machine, peak_flops, random_teacher, timed, use_device

Round = dict[str, float]
"""The measurements of one round, by name."""

_PAIRS = 150_000_000  # of the projected hours


@dataclass(frozen=True)
class TrainingBench:
    """A trainer, and loaders that pad the same pairs in different ways."""

    trainer: Trainer
    accelerator: Accelerator
    loaders: dict[str, BatchLoader]
    eos_ids: tuple[int, int]
    shape: CLIPTextConfig


def main() -> None:
    """Measure, print, and write `result.json` into the working folder."""
    args = _options()
    device = use_device(args.device)
    config = _config(args)
    bench = _build_bench(config, args)
    result: dict[str, Any] = {"machine": machine(), "settings": _settings(config, args)}
    rounds = [_round(bench, args, number) for number in tqdm(range(args.rounds), desc="rounds")]
    result["steps"] = _summary(rounds)
    if device.type == "cuda":
        result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    if args.peer:
        from eval.speed.peer_sentence_transformers import time_against_peer

        result["peer"] = time_against_peer(config, args.domain, args.work, args.steps, args.rounds)
    write_json(result, args.work / "result.json")
    print(json.dumps(result, indent=1, ensure_ascii=False))


def _options() -> Namespace:
    parser = ArgumentParser(prog="benchmark.py train", description=__doc__, exit_on_error=False)
    parser.add_argument("--teacher", type=str, required=True, help="a teacher; with --shape only its tokenizer is used")
    parser.add_argument(
        "--shape", type=Shape | None, help="random weights of a published size instead of the teacher's"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="a corpus that data.build wrote")
    parser.add_argument("--domain", type=str, default="caption", help="the domain whose rows are read")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--full-share", type=float, default=0.25, help="share of max-length steps in the mix")
    parser.add_argument("--english-every", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="steps of each kind in a round; 1 / full-share divides it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", type=Precision, default="auto", help="auto, bf16 or fp32, as train.precision")
    parser.add_argument("--device", type=str | None, help="cpu, cuda ...; by default the accelerator if there is one")
    parser.add_argument("--peer", type=bool, default=True, help="also measure sentence-transformers' trainer")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-train"))
    args = parser.parse_args()
    if args.rounds < 1 or args.steps < 1 or abs(args.steps * args.full_share % 1) > 1e-9:
        raise UserError("--steps: steps * full-share must be whole, so that a round has its share of full steps")
    return args


def _config(args: Namespace) -> RunConfig:
    """A run's configuration on the rows of one domain and the dictionary, from which the tokenizer learns words."""
    for split in ("train", "valid"):
        if not (args.corpus / split).is_dir():
            raise UserError(f"--corpus {args.corpus}: no folder {split} there; python -m data.build makes a corpus")
        rows = ds.dataset(args.corpus / split, format="parquet").to_table(
            columns=["en", "zh", "domain"], filter=pc.field("domain").isin([args.domain, "dictionary"])
        )
        path = args.work / "corpus" / split / "part-00000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    teacher = args.teacher
    if args.shape is not None:
        teacher = random_teacher(args.shape, load_clip_tokenizer(teacher, "--teacher"), args.work)
    options = {
        "teacher": teacher, "out_dir": args.work / f"run-{args.shape or 'given'}",
        "data.corpus": args.work / "corpus",
        "data.mixture.weights": f"{{{args.domain}: 1.0}}", "train.batch_size": args.batch_size,
        "train.full_share": args.full_share, "train.english_every": args.english_every,
        "train.precision": args.precision,
    }  # fmt: skip
    config = parse_config([part for key, value in options.items() for part in (f"--{key}", str(value))])
    # The peer and the result have the precision that the trainer computes in.
    return with_precision(config, make_accelerator(config).device)


def _build_bench(config: RunConfig, args: Namespace) -> TrainingBench:
    accelerator = make_accelerator(config)
    prepared = prepare_run(config, 1)
    shape = prepared.pretrained.model.config
    setup = build_setup(config, accelerator, prepared.store, prepared.pretrained)
    tokens = TokenStore(prepared.store).train
    sizes = {domain: len(rows) for domain, rows in tokens.items()}
    mixture = mixture_stages(sizes, config.data.mixture, config.train.steps, config.train.batch_size)
    vocabularies = setup.teacher_vocabulary, setup.task.student.vocabulary

    def loader_of(share: float, everything: bool) -> BatchLoader:
        schedule = BatchSchedule(0, config.train.batch_size, config.data.window, share)
        batches = BatchDataset(tokens, mixture, schedule, *vocabularies)
        pooled_zh = setup.loader.pooled_zh and not everything
        return BatchLoader(batches, config.train.english_every, everything, pooled_zh=pooled_zh)

    modes = {"tight": loader_of(0, False), "mix": loader_of(args.full_share, False), "padded": loader_of(1, True)}
    eos_ids = vocabularies[0].eos_id, vocabularies[1].eos_id
    return TrainingBench(Trainer(setup, config.train, accelerator, args.work), accelerator, modes, eos_ids, shape)


def _round(bench: TrainingBench, args: Namespace, number: int) -> Round:
    """Seconds, FLOPs and tokens of the same pairs with every loader, and the FLOPs a second of a large product."""
    first = number * args.steps
    steps = range(first, first + args.steps)
    measured: Round = {"peak": peak_flops(args.precision)}
    trainer, setup = bench.trainer, bench.trainer.setup
    for name, loader in bench.loaders.items():
        for step in steps[:1] if number == 0 else ():  # memory and caches
            trainer.step(step, loader)
        measured[name] = timed(partial(_run_all, partial(trainer.step, loader=loader), steps))
        batches = [loader[step] for step in steps]
        measured[f"{name} flops"] = sum(measure.step_flops(bench.shape, each, *bench.eos_ids) for each in batches)
        measured[f"{name} tokens"] = sum(measure.count_tokens(each, *bench.eos_ids) for each in batches)
    for name in ("tight", "mix"):
        loader = bench.loaders[name]
        measured[f"{name} loader"] = timed(partial(_run_all, loader.__getitem__, steps))
        batches = [loader[step].to(setup.teacher.device) for step in steps]
        with trainer.autocast():
            measured[f"{name} teacher"] = timed(lambda: [setup.teacher.targets(batch) for batch in batches])  # noqa: B023
    measured["pairs"] = args.steps * args.batch_size
    return measured


def _run_all(work: Callable[[int], object], steps: Iterable[int]) -> None:
    for step in steps:
        work(step)


def _median_and_range(rounds: Iterable[Round], value: Callable[[Round], float], digits: int = 2) -> dict[str, float]:
    """The median of the rounds and their range."""
    values = [value(each) for each in rounds]
    summary = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(number, digits) for name, number in summary.items()}


def _summary(rounds: list[Round]) -> dict[str, Any]:
    """Ratios, and a summary of each loader."""
    result: dict[str, Any] = {
        "padded over tight": _median_and_range(rounds, lambda r: r["padded"] / r["tight"]),
        "padded over mix": _median_and_range(rounds, lambda r: r["padded"] / r["mix"]),
        "large product, TFLOP/s": _median_and_range(rounds, lambda r: r["peak"] / 1e12, 3),
    }
    for name in ("tight", "mix", "padded"):
        result[name] = _mode_summary(rounds, name)
    return result


def _mode_summary(rounds: list[Round], name: str) -> dict[str, Any]:
    """Median and range of the rounds with one loader."""
    summary: dict[str, Any] = {
        "pairs a second": _median_and_range(rounds, lambda r: r["pairs"] / r[name], 0),
        "tokens a second": _median_and_range(rounds, lambda r: r[f"{name} tokens"] / r[name], 0),
        "of the large product": _median_and_range(rounds, lambda r: r[f"{name} flops"] / r[name] / r["peak"], 3),
    }
    summary["hours of this machine for 150 M pairs"] = round(_PAIRS / summary["pairs a second"]["median"] / 3600)
    if name != "padded":
        share = _median_and_range(rounds, lambda r: (r[f"{name} loader"] + r[f"{name} teacher"]) / r[name], 3)
        summary["share of teacher and loader"] = share
    return summary


def _settings(run: RunConfig, args: Namespace) -> dict[str, Any]:
    return {
        "teacher": args.shape or run.teacher, "domain": args.domain, "batch size": run.train.batch_size,
        "full share": run.train.full_share, "english every": run.train.english_every,
        "precision": run.train.precision, "steps a round": args.steps, "rounds": args.rounds,
        "losses": [type(loss).__name__ for loss in run.losses.enabled],
    }  # fmt: skip
