"""From a configuration to what the loop needs: files by the main process, then the parts by every process.

What some losses need besides a batch: checked at start-up, then made.

What a run is made of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from data.cli import UserError
from data.loader.batches import Batches, Schedule
from data.loader.mixture import stages
from data.loader.token_store import DomainTokens, TokenStore, check_corpus, write_token_store
from distill.geometry import Geometry, read_geometry
from distill.losses import Hidden, KvMetric, LossesConfig, Readout
from distill.student.build import build_student, build_tokenizer, check_student, load_student_tokenizer
from distill.student.chinese_bpe import fertility
from distill.student.extended import ExtendedConfig
from distill.student.init_embeddings import glosses
from distill.text_tower import Pretrained
from distill.train import checkpoint
from distill.train.batch import Readings, Teacher
from distill.train.config import ResolvedConfig, RunConfig
from distill.train.run_folder import claim
from distill.train.task import EmptyPrompt, Extras, Task


def check_losses(config: RunConfig, width: int) -> None:
    """Refuse losses that teacher (of `width`), student or steps cannot give; `UserError` with the key and the fix."""
    losses, share = config.losses, config.train.full_share
    if losses.readout and share == 0:
        raise UserError("losses.readout: counts on full steps alone, and train.full_share is 0; give it a share")
    if losses.kv_metric and losses.kv_metric.chinese_padding and share == 0:
        raise UserError("losses.kv_metric.chinese_padding: there is padding on full steps alone; set train.full_share")
    by_slot: tuple[type, ...] = (Readout,)
    if not isinstance(config.student.kind, ExtendedConfig):
        by_slot = (Readout, Hidden, KvMetric)
        for name, loss in (("hidden", losses.hidden), ("kv_metric", losses.kv_metric)):
            if loss and share == 0:
                raise UserError(
                    f"losses.{name}: the student's English tokens are not the teacher's, so slots compare on full "
                    f"steps alone, and train.full_share is 0; give it a share, or losses.{name}: null"
                )
    if share < 1 and all(isinstance(loss, by_slot) for loss in losses.chosen):
        name, else_ = ("losses.readout", " else") if losses.readout else ("losses", "")
        raise UserError(f"{name}: nothing{else_} counts on tight steps; set train.full_share: 1, or add a loss")
    if losses.translation and config.student.xlmr is None and width % losses.translation.decoder.heads:
        heads = losses.translation.decoder.heads
        raise UserError(f"losses.translation.decoder.heads: {heads} heads do not divide the width {width}")
    if losses.unet_geometry is not None:
        geometry = read_geometry(losses.unet_geometry, torch.device("cpu"))
        if losses.readout and not geometry.layers:
            raise UserError(
                f"losses.readout: {losses.unet_geometry} holds the metric of one of two encoders, which are "
                "read together; use losses.kv_metric"
            )
        if geometry.width != width:
            raise UserError(
                f"losses.unet_geometry: {losses.unet_geometry} reads states of width {geometry.width}, "
                f"the teacher's have {width}; take the UNet that belongs to this teacher"
            )


def extras(
    losses: LossesConfig,
    teacher: Teacher,
    teacher_tokenizer: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    slots: int,
) -> Extras:
    """What the losses of the run need, on the teacher's device."""
    geometry: Geometry | None = None
    if losses.unet_geometry is not None:
        geometry = read_geometry(losses.unet_geometry, teacher.device)
    empty: EmptyPrompt | None = None
    if losses.empty_prompt:
        ids, student_ids = (_empty(each, slots).to(teacher.device) for each in (teacher_tokenizer, tokenizer))
        empty = EmptyPrompt(student_ids, teacher(ids))
    end_of_text = tokenizer.eos_token_id
    assert isinstance(end_of_text, int)
    return Extras(empty, geometry, end_of_text)


def _empty(tokenizer: PreTrainedTokenizerFast, slots: int) -> torch.Tensor:
    """The empty prompt as a pipeline gives it: int64 [1, slots]."""
    ids: torch.Tensor = tokenizer([""], padding="max_length", max_length=slots, return_tensors="pt")["input_ids"]
    return ids


@dataclass(frozen=True)
class Parts:
    """What the loop turns: readings in, a task to train, a teacher to ask, held-out rows to look at."""

    task: Task
    teacher: Teacher
    readings: Readings
    valid: Mapping[str, DomainTokens]
    pad: int
    """Of the teacher's vocabulary."""
    student_pad: int


@dataclass(frozen=True)
class Prepared:
    """What the main process has made: the token store's folder; and the teacher, which it has loaded meanwhile."""

    store: Path
    pretrained: Pretrained


def prepare(resolved: ResolvedConfig, processes: int) -> Prepared:
    """Claim the run's folder, learn the tokenizer, write the token store; each only where it is missing."""
    config = resolved.run
    _check_division(config, processes)
    check_corpus(config.data.corpus)
    teacher = config.load_teacher()
    check_losses(config, teacher.width)
    check_student(config.student.kind)
    claim(config.out_dir, resolved)
    place = config.out_dir / "tokenizer"
    if not place.is_dir():
        print(f"making the student's tokenizer on {config.data.corpus}", flush=True)
        build_tokenizer(config.student.kind, teacher.tokenizer, config.data.corpus, teacher.slots, place)
    student = load_student_tokenizer(config.student.kind, place, "out_dir").backend_tokenizer
    _report_fertility(config, student)
    stores = config.data.token_store or config.out_dir / "tokens"
    words = teacher.tokenizer.backend_tokenizer
    store = write_token_store(config.data.corpus, stores, words, student, teacher.slots)
    stages(_sizes(TokenStore(store)), config.data.mixture)  # refused here, by one process
    return Prepared(store, teacher)


def make_parts(config: RunConfig, accelerator: Accelerator, store: Path, pretrained: Pretrained) -> Parts:
    """Init order: data, student (which starts as the teacher), teacher, task."""
    tokens = TokenStore(store)
    sizes = _sizes(tokens)
    mixture = stages(sizes, config.data.mixture)
    if accelerator.is_main_process:
        for stage in mixture:
            told = (f"{domain} {share:.0%} of {sizes[domain]:,}" for domain, share in stage.shares.items())
            print(f"mixture from step {stage.start}: " + ", ".join(told))
    on_cpu = accelerator.device.type == "cpu"
    train, kind = config.train, config.student.kind
    tokenizer = load_student_tokenizer(kind, config.out_dir / "tokenizer", "out_dir")
    resumed = bool(checkpoint.steps(config.out_dir / "checkpoints"))
    senses = {} if resumed else glosses(config.data.corpus)
    student = build_student(kind, pretrained, tokenizer, senses, on_cpu).to(accelerator.device)
    if train.recompute:
        student.recompute()
    teacher = Teacher(pretrained, accelerator.device)
    if train.compile:
        student.compile(dynamic=True)
        teacher.compile()
    words = pretrained.tokenizer
    needed = extras(config.losses, teacher, words, tokenizer, student.slots)
    schedule = Schedule(train.seed, train.batch_size, config.data.window, train.full_share)
    ranks = accelerator.process_index, accelerator.num_processes
    batches = Batches(
        tokens.train, mixture, schedule, words.pad_token_id, student.slots, *ranks, student_pad=tokenizer.pad_token_id
    )
    ends = words.eos_token_id, needed.end_of_text
    return Parts(
        task=Task(student, config.losses, replace(needed, aligned=isinstance(kind, ExtendedConfig))),
        teacher=teacher,
        readings=Readings(batches, train.english_every, ends, config.losses.reads_chinese_padding),
        valid=tokens.valid,
        pad=words.pad_token_id,
        student_pad=tokenizer.pad_token_id,
    )


def _check_division(config: RunConfig, processes: int) -> None:
    """Refuse a batch that does not divide into equal parts with whole groups of `english_every` pairs."""
    train = config.train
    if train.batch_size % processes:
        raise UserError(f"train.batch_size: {train.batch_size} pairs do not divide among {processes} processes")
    each = train.batch_size // processes
    if processes > 1 and each % train.english_every:
        raise UserError(
            f"train.english_every: {each} pairs a process are no multiple of "
            f"{train.english_every}; ranks would read other English than one process"
        )
    if train.accumulate > 1 and each % (train.accumulate * train.english_every):
        raise UserError(
            f"train.accumulate: {each} pairs a process do not divide into {train.accumulate} parts of a multiple of "
            f"train.english_every ({train.english_every})"
        )


def _report_fertility(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Say and write, once a run, how many tokens a Chinese character costs."""
    path = config.out_dir / "fertility.json"
    if not path.is_file():
        found = fertility(config.data.corpus, tokenizer)
        print("tokens a Chinese character: " + ", ".join(f"{domain} {cost:.2f}" for domain, cost in found.items()))
        path.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _sizes(tokens: TokenStore) -> dict[str, int]:
    return {domain: len(rows) for domain, rows in tokens.train.items()}
