"""`python scripts/benchmark.py train`: what a training step costs, against padding everything and against a peer.

Every ratio is of two things measured one after the other in the same run, round by round; given are the median of the
rounds and their range. Everything in a step counts: loader, teacher, student, losses, optimizer.
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
from data.loader.batches import Batches, Schedule
from data.loader.mixture import stages
from data.loader.token_store import TokenStore
from distill import text_tower
from distill.student.build import load_student_tokenizer
from distill.train.batch import Readings
from distill.train.config import ResolvedConfig, parse
from distill.train.main import make_accelerator
from distill.train.setup import make_parts, prepare
from distill.train.trainer import Trainer
from eval.speed import measure
from eval.speed.measure import Shape, machine, peak_flops, random_teacher, seconds

Round = dict[str, float]
"""What one round has measured, by name."""

_PAIRS = 150_000_000  # of the projection: what SkyCLIP was trained on


@dataclass(frozen=True)
class Setting:
    """A trainer, and the ways of reading the same pairs."""

    trainer: Trainer
    accelerator: Accelerator
    readings: dict[str, Readings]
    ends: tuple[int, int]
    shape: CLIPTextConfig


def main() -> None:
    """Measure, print, and write `result.json` into the working folder."""
    given = _options()
    resolved = _config(given)
    setting = _setting(resolved, given)
    result: dict[str, Any] = {"machine": machine(), "settings": _said(resolved, given)}
    rounds = [_round(setting, given, number) for number in tqdm(range(given.rounds), desc="rounds")]
    result["steps"] = _summary(rounds)
    if torch.cuda.is_available():
        result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    if given.peer:
        from eval.speed.peer_sentence_transformers import compare

        result["peer"] = compare(resolved, given.domain, given.work, given.steps, given.rounds)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (given.work / "result.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _options() -> Namespace:
    parser = ArgumentParser(prog="benchmark.py train", description=__doc__, exit_on_error=False)
    parser.add_argument("--teacher", type=str, required=True, help="a teacher; with --shape its tokenizer alone")
    parser.add_argument(
        "--shape", type=Shape | None, help="random weights of a published size instead of the teacher's"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="a corpus that data.build wrote")
    parser.add_argument("--domain", type=str, default="caption", help="whose rows are read")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--full-share", type=float, default=0.25, help="of the mix of tight and full steps")
    parser.add_argument("--english-every", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="steps of each kind in a round; 1 / full-share divides it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", type=bool, default=True, help="whether sentence-transformers' trainer runs as well")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-train"))
    given = parser.parse_args()
    if given.rounds < 1 or given.steps < 1 or abs(given.steps * given.full_share % 1) > 1e-9:
        raise UserError("--steps: steps * full-share must be whole, so that a round has its share of full steps")
    return given


def _config(given: Namespace) -> ResolvedConfig:
    """A run on the rows of one domain (and the dictionary, from which the tokenizer learns words)."""
    for split in ("train", "valid"):
        if not (given.corpus / split).is_dir():
            raise UserError(f"--corpus {given.corpus}: no folder {split} there; python -m data.build makes a corpus")
        rows = ds.dataset(given.corpus / split, format="parquet").to_table(
            columns=["en", "zh", "domain"], filter=pc.field("domain").isin([given.domain, "dictionary"])
        )
        path = given.work / "corpus" / split / "part-00000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    teacher = given.teacher
    if given.shape is not None:
        tokenizer = text_tower.load_tokenizer(teacher, "--teacher")
        teacher = str(random_teacher(given.shape, tokenizer, given.work / given.shape))
    options = {
        "teacher": teacher, "out_dir": given.work / f"run-{given.shape or 'given'}",
        "data.corpus": given.work / "corpus",
        "data.mixture.weights": f"{{{given.domain}: 1.0}}", "train.batch_size": given.batch_size,
        "train.full_share": given.full_share, "train.english_every": given.english_every,
    }  # fmt: skip
    return parse([part for key, value in options.items() for part in (f"--{key}", str(value))])


def _setting(resolved: ResolvedConfig, given: Namespace) -> Setting:
    config = resolved.run
    accelerator = make_accelerator(config)
    prepared = prepare(resolved, 1)
    words = prepared.pretrained.tokenizer
    shape = prepared.pretrained.model.config
    parts = make_parts(config, accelerator, prepared.store, prepared.pretrained)
    tokens = TokenStore(prepared.store).train
    mixture = stages({domain: len(rows) for domain, rows in tokens.items()}, config.data.mixture)
    student = load_student_tokenizer(config.student.kind, config.out_dir / "tokenizer", "out_dir")
    ends = int(words.eos_token_id), int(student.eos_token_id)

    def readings(share: float, everything: bool) -> Readings:
        schedule = Schedule(0, config.train.batch_size, config.data.window, share)
        batches = Batches(tokens, mixture, schedule, parts.pad, parts.task.student.slots, student_pad=parts.student_pad)
        return Readings(batches, config.train.english_every, ends, everything)

    ways = {"tight": readings(0, False), "mix": readings(given.full_share, False), "padded": readings(1, True)}
    return Setting(Trainer(parts, config.train, accelerator, given.work), accelerator, ways, ends, shape)


def _round(setting: Setting, given: Namespace, number: int) -> Round:
    """Seconds, arithmetic and tokens of the same pairs read in every way, and the machine's own best product."""
    first = number * given.steps
    steps = range(first, first + given.steps)
    found: Round = {"peak": peak_flops()}
    trainer, parts = setting.trainer, setting.trainer.parts
    for name, readings in setting.readings.items():
        for step in steps[:1] if number == 0 else ():  # memory and caches
            trainer.step(step, readings)
        found[name] = seconds(partial(_each, partial(trainer.step, readings=readings), steps))
        read = [readings[step] for step in steps]
        found[f"{name} flops"] = sum(measure.step_flops(setting.shape, each, *setting.ends) for each in read)
        found[f"{name} tokens"] = sum(measure.tokens(each, *setting.ends) for each in read)
    for name in ("tight", "mix"):
        readings = setting.readings[name]
        found[f"{name} loader"] = seconds(partial(_each, readings.__getitem__, steps))
        read = [readings[step].to(parts.teacher.device) for step in steps]
        with setting.accelerator.autocast():
            found[f"{name} teacher"] = seconds(partial(_each, parts.teacher.targets, read))
    found["pairs"] = given.steps * given.batch_size
    return found


def _each(work: Callable[[Any], object], things: Iterable[Any]) -> None:
    for thing in things:
        work(thing)


def _over(rounds: Iterable[Round], value: Callable[[Round], float], digits: int = 2) -> dict[str, float]:
    """The median of the rounds and their range."""
    values = [value(each) for each in rounds]
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(number, digits) for name, number in found.items()}


def _summary(rounds: list[Round]) -> dict[str, Any]:
    """What the rounds say, by name of what is measured."""
    result: dict[str, Any] = {
        "padded over tight": _over(rounds, lambda r: r["padded"] / r["tight"]),
        "padded over mix": _over(rounds, lambda r: r["padded"] / r["mix"]),
        "large product, TFLOP/s": _over(rounds, lambda r: r["peak"] / 1e12, 3),
    }
    for name in ("tight", "mix", "padded"):
        result[name] = _way(rounds, name)
    return result


def _way(rounds: list[Round], name: str) -> dict[str, Any]:
    """What the rounds say of one way of reading."""
    found: dict[str, Any] = {
        "pairs a second": _over(rounds, lambda r: r["pairs"] / r[name], 0),
        "tokens a second": _over(rounds, lambda r: r[f"{name} tokens"] / r[name], 0),
        "of the large product": _over(rounds, lambda r: r[f"{name} flops"] / r[name] / r["peak"], 3),
    }
    found["hours of this machine for 150 M pairs"] = round(_PAIRS / found["pairs a second"]["median"] / 3600)
    if name != "padded":
        share = _over(rounds, lambda r: (r[f"{name} loader"] + r[f"{name} teacher"]) / r[name], 3)
        found["share of teacher and loader"] = share
    return found


def _said(resolved: ResolvedConfig, given: Namespace) -> dict[str, Any]:
    run = resolved.run
    return {
        "teacher": given.shape or run.teacher, "domain": given.domain, "batch size": run.train.batch_size,
        "full share": run.train.full_share, "english every": run.train.english_every,
        "precision": run.train.precision, "steps a round": given.steps, "rounds": given.rounds,
        "losses": [type(loss).__name__ for loss in run.losses.chosen],
    }  # fmt: skip
