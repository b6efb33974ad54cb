"""From a configuration to what the loop needs: files by the main process, then the parts by every process."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator
from tokenizers import Tokenizer

from data.batches import Batches, Schedule
from data.command import UserError
from data.mixture import stages
from data.tokens import TokenStore, write_token_store
from distill import checkpoint
from distill.config import ResolvedConfig, RunConfig
from distill.corpus import check_corpus
from distill.extras import check_losses, extras
from distill.parts import Parts
from distill.pretrained import Pretrained
from distill.reading import Readings
from distill.run_folder import claim
from distill.student.build import build_student, build_tokenizer, check_student, load_student_tokenizer
from distill.student.extended import ExtendedConfig
from distill.student.fertility import fertility
from distill.student.glosses import glosses
from distill.task import Task
from distill.teacher import Teacher


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
