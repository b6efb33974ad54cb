"""`scripts/distill.py`: parse, prepare, train, close."""

import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, set_seed
from tokenizers import Tokenizer

from data.batches import Batches, Schedule
from data.command import UserError
from data.mixture import shares
from data.tokens import TokenStore, write_token_store
from distill import checkpoint, tower
from distill.config import ResolvedConfig, RunConfig, parse
from distill.corpus import check_corpus
from distill.extras import check_losses, extras
from distill.run_folder import claim, locked
from distill.student.build import build_student, build_tokenizer, check_student, load_student_tokenizer
from distill.student.extended import ExtendedConfig
from distill.student.fertility import fertility
from distill.student.glosses import glosses
from distill.task import Task
from distill.teacher import Teacher
from distill.trainer import DivergedError, Parts, Trainer

_PATIENCE = timedelta(days=1)  # the other ranks wait while the main process tokenises, hours for a large corpus


def main() -> None:
    """Train the run of `--config FILE.yaml`; the same command resumes it."""
    resolved = parse()
    config = resolved.run
    for tracker in config.train.trackers:
        if find_spec(tracker) is None:
            raise UserError(f"train.trackers: {tracker} is not installed; pip install {tracker}, or leave it out")
    # Where no loss looks at the pooled state, the projection has no gradient, and DDP must be told; xlmr's projection
    # of the states has none on tight steps.
    blind = not config.losses.looks_at_pooled or config.student.xlmr is not None
    accelerator = Accelerator(
        mixed_precision="bf16" if config.train.precision == "bf16" else "no",
        log_with=config.train.trackers or None,
        project_dir=config.out_dir,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=blind, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=_PATIENCE),
        ],
    )
    with locked(config.out_dir) if accelerator.is_main_process else nullcontext():
        _run(resolved, accelerator)


def _run(resolved: ResolvedConfig, accelerator: Accelerator) -> None:
    """Prepare on the main process, then train on all."""
    config = resolved.run
    set_seed(config.train.seed)
    # The main process alone prepares; where that fails it exits, and the launcher ends the others.
    store = [str(_prepare(resolved, accelerator.num_processes))] if accelerator.is_main_process else [""]
    broadcast_object_list(store)
    if config.train.trackers:
        accelerator.init_trackers("yuqiao", config={"config": resolved.yaml})
    trainer = Trainer(_parts(config, accelerator, Path(store[0])), config.train, accelerator, config.out_dir)
    try:
        progress = trainer.train()
    except DivergedError as error:
        raise UserError(str(error)) from error
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        print(f"{config.out_dir}: step {progress.step} of {config.train.steps}, {progress.pairs} pairs")
        print(f"next: python scripts/export.py --run {config.out_dir} --out STUDENT")


def _prepare(resolved: ResolvedConfig, processes: int) -> Path:
    """Claim the run's folder, learn the tokenizer, write the token store; each only where it is missing."""
    config = resolved.run
    if config.train.batch_size % processes:
        raise UserError(f"train.batch_size: {config.train.batch_size} pairs do not divide among {processes} processes")
    if processes > 1 and config.train.batch_size // processes % config.train.english_every:
        raise UserError(
            f"train.english_every: {config.train.batch_size // processes} pairs a process are no multiple of "
            f"{config.train.english_every}; ranks would read other English than one process"
        )
    check_corpus(config.data.corpus)
    teacher = tower.load_tokenizer(config.teacher, "teacher")
    shape = tower.load_tower(config.teacher, "teacher").config
    slots = shape.max_position_embeddings
    check_losses(config, shape.hidden_size)
    check_student(config.student.kind)
    claim(config.out_dir, resolved)
    place = config.out_dir / "tokenizer"
    if not place.is_dir():
        print(f"making the student's tokenizer on {config.data.corpus}", flush=True)
        build_tokenizer(config.student.kind, config.teacher, config.data.corpus, slots, place)
    student = load_student_tokenizer(config.student.kind, place, "out_dir")
    _report_fertility(config, student.backend_tokenizer)
    stores = config.data.token_store or config.out_dir / "tokens"
    store = write_token_store(config.data.corpus, stores, teacher.backend_tokenizer, student.backend_tokenizer, slots)
    shares(_sizes(TokenStore(store)), config.data.mixture)  # refused here, by one process
    return store


def _report_fertility(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Say and write, once a run, how many tokens a Chinese character costs."""
    path = config.out_dir / "fertility.json"
    if not path.is_file():
        found = fertility(config.data.corpus, tokenizer)
        print("tokens a Chinese character: " + ", ".join(f"{domain} {cost:.2f}" for domain, cost in found.items()))
        path.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _sizes(tokens: TokenStore) -> dict[str, int]:
    return {domain: len(rows) for domain, rows in tokens.train.items()}


def _parts(config: RunConfig, accelerator: Accelerator, store: Path) -> Parts:
    """Init order: data, student (which starts as the teacher), teacher, task."""
    tokens = TokenStore(store)
    sizes = _sizes(tokens)
    mixture = shares(sizes, config.data.mixture)
    if accelerator.is_main_process:
        print(
            "mixture: " + ", ".join(f"{domain} {share:.0%} of {sizes[domain]:,}" for domain, share in mixture.items())
        )
    on_cpu = accelerator.device.type == "cpu"
    kind = config.student.kind
    tokenizer = load_student_tokenizer(kind, config.out_dir / "tokenizer", "out_dir")
    resumed = bool(checkpoint.steps(config.out_dir / "checkpoints"))
    senses = {} if resumed else glosses(config.data.corpus)
    student = build_student(kind, config.teacher, tokenizer, senses, on_cpu).to(accelerator.device)
    if config.train.recompute:
        student.recompute()
    teacher_tokenizer = tower.load_tokenizer(config.teacher, "teacher")
    pads = teacher_tokenizer.pad_token_id, tokenizer.pad_token_id
    schedule = Schedule(config.train.seed, config.train.batch_size, config.data.window, config.train.full_share)
    ranks = accelerator.process_index, accelerator.num_processes
    teacher = Teacher(config.teacher, accelerator.device)
    needed = extras(config.losses, teacher, teacher_tokenizer, tokenizer, student.slots)
    needed = replace(needed, aligned=isinstance(kind, ExtendedConfig))
    return Parts(
        task=Task(student, config.losses, config.train.english_every, needed),
        teacher=teacher,
        batches=Batches(tokens.train, mixture, schedule, pads[0], student.slots, *ranks, student_pad=pads[1]),
        valid=tokens.valid,
        pad=pads[0],
        student_pad=pads[1],
    )
