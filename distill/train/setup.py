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
from data.loader.batches import BatchDataset, BatchSchedule, Vocabulary
from data.loader.mixture import mixture_stages
from data.loader.token_store import DomainTokens, TokenStore, check_corpus, write_token_store
from distill.geometry import Geometry, read_geometry
from distill.losses import Hidden, KvMetric, LossesConfig, Readout
from distill.student.base import vocabulary_of
from distill.student.init_embeddings import fertility, read_dictionary
from distill.text_tower import Pretrained
from distill.train import checkpoint
from distill.train.batch import BatchLoader, Teacher
from distill.train.config import ResolvedConfig, RunConfig
from distill.train.run_folder import claim_run_dir
from distill.train.task import EmptyPromptTarget, LossConstants, Task


def validate_losses(config: RunConfig, width: int) -> None:
    """Refuse losses that teacher (of `width`), student or steps cannot give; `UserError` with the key and the fix."""
    losses, share = config.losses, config.train.full_share
    if losses.readout and share == 0:
        raise UserError("losses.readout: counts on full steps alone, and train.full_share is 0; give it a share")
    if losses.kv_metric and losses.kv_metric.chinese_padding and share == 0:
        raise UserError("losses.kv_metric.chinese_padding: there is padding on full steps alone; set train.full_share")
    positionwise: tuple[type, ...] = (Readout,)
    if not config.student.kind.shares_english_tokens:
        positionwise = (Readout, Hidden, KvMetric)
        for name, loss in (("hidden", losses.hidden), ("kv_metric", losses.kv_metric)):
            if loss and share == 0:
                raise UserError(
                    f"losses.{name}: the student's English tokens are not the teacher's, so slots compare on full "
                    f"steps alone, and train.full_share is 0; give it a share, or losses.{name}: null"
                )
    if share < 1 and all(isinstance(loss, positionwise) for loss in losses.enabled):
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


def build_loss_constants(
    losses: LossesConfig,
    teacher: Teacher,
    teacher_tokenizer: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
) -> LossConstants:
    """What the losses of the run need, on the teacher's device."""
    geometry: Geometry | None = None
    if losses.unet_geometry is not None:
        geometry = read_geometry(losses.unet_geometry, teacher.device)
    empty: EmptyPromptTarget | None = None
    if losses.empty_prompt:
        ids, student_ids = (
            _empty_prompt_ids(each, max_length).to(teacher.device) for each in (teacher_tokenizer, tokenizer)
        )
        empty = EmptyPromptTarget(student_ids, teacher(ids))
    return LossConstants(empty, geometry)


def _empty_prompt_ids(tokenizer: PreTrainedTokenizerFast, max_length: int) -> torch.Tensor:
    """The empty prompt as a pipeline gives it: int64 [1, slots]."""
    ids: torch.Tensor = tokenizer([""], padding="max_length", max_length=max_length, return_tensors="pt")["input_ids"]
    return ids


@dataclass(frozen=True)
class TrainSetup:
    """What the loop turns: readings in, a task to train, a teacher to ask, held-out rows to look at."""

    task: Task
    teacher: Teacher
    loader: BatchLoader
    valid: Mapping[str, DomainTokens]
    teacher_vocabulary: Vocabulary


@dataclass(frozen=True)
class PreparedRun:
    """What the main process has made: the token store's folder; and the teacher, which it has loaded meanwhile."""

    store: Path
    pretrained: Pretrained


def prepare_run(resolved: ResolvedConfig, processes: int) -> PreparedRun:
    """Claim the run's folder, learn the tokenizer, write the token store; each only where it is missing."""
    config = resolved.run
    _check_division(config, processes)
    check_corpus(config.data.corpus)
    teacher = config.load_teacher()
    validate_losses(config, teacher.width)
    config.student.kind.check()
    claim_run_dir(config.out_dir, resolved)
    tokenizer_folder = config.out_dir / "tokenizer"
    if not tokenizer_folder.is_dir():
        print(f"making the student's tokenizer on {config.data.corpus}", flush=True)
        config.student.kind.build_tokenizer(teacher, config.data.corpus, tokenizer_folder)
    student_tokenizer = config.student.kind.load_tokenizer(tokenizer_folder, "out_dir").backend_tokenizer
    _report_fertility(config, student_tokenizer)
    store_root = config.data.token_store or config.out_dir / "tokens"
    teacher_tokenizer = teacher.tokenizer.backend_tokenizer
    store = write_token_store(config.data.corpus, store_root, teacher_tokenizer, student_tokenizer, teacher.max_length)
    mixture_stages(_sizes(TokenStore(store)), config.data.mixture)  # refused here, by one process
    return PreparedRun(store, teacher)


def build_setup(config: RunConfig, accelerator: Accelerator, store: Path, pretrained: Pretrained) -> TrainSetup:
    """Init order: data, student (which starts as the teacher), teacher, task."""
    tokens = TokenStore(store)
    sizes = _sizes(tokens)
    mixture = mixture_stages(sizes, config.data.mixture)
    if accelerator.is_main_process:
        for stage in mixture:
            shares = (f"{domain} {share:.0%} of {sizes[domain]:,}" for domain, share in stage.shares.items())
            print(f"mixture from step {stage.start}: " + ", ".join(shares))
    on_cpu = accelerator.device.type == "cpu"
    train, kind = config.train, config.student.kind
    tokenizer = kind.load_tokenizer(config.out_dir / "tokenizer", "out_dir")
    resumed = bool(checkpoint.saved_steps(config.out_dir / "checkpoints"))
    translations = {} if resumed else read_dictionary(config.data.corpus)
    student = kind.build(pretrained, tokenizer, translations, on_cpu).to(accelerator.device)
    if train.recompute:
        student.enable_gradient_checkpointing()
    teacher = Teacher(pretrained, accelerator.device)
    if train.compile:
        student.compile(dynamic=True)
        teacher.compile()
    teacher_tokenizer = pretrained.tokenizer
    teacher_vocabulary = vocabulary_of(teacher_tokenizer, pretrained.max_length)
    loss_constants = build_loss_constants(
        config.losses, teacher, teacher_tokenizer, tokenizer, student.vocabulary.max_length
    )
    schedule = BatchSchedule(train.seed, train.batch_size, config.data.window, train.full_share)
    ranks = accelerator.process_index, accelerator.num_processes
    vocabularies = teacher_vocabulary, student.vocabulary
    batches = BatchDataset(tokens.train, mixture, schedule, *vocabularies, *ranks)
    return TrainSetup(
        task=Task(student, config.losses, replace(loss_constants, aligned=kind.shares_english_tokens)),
        teacher=teacher,
        loader=BatchLoader(batches, *vocabularies, train.english_every, config.losses.uses_zh_padding),
        valid=tokens.valid,
        teacher_vocabulary=teacher_vocabulary,
    )


def _check_division(config: RunConfig, processes: int) -> None:
    """Refuse a batch that does not divide into equal parts with whole groups of `english_every` pairs."""
    train = config.train
    if train.batch_size % processes:
        raise UserError(f"train.batch_size: {train.batch_size} pairs do not divide among {processes} processes")
    pairs_per_process = train.batch_size // processes
    if processes > 1 and pairs_per_process % train.english_every:
        raise UserError(
            f"train.english_every: {pairs_per_process} pairs a process are no multiple of "
            f"{train.english_every}; ranks would read other English than one process"
        )
    if train.accumulate > 1 and pairs_per_process % (train.accumulate * train.english_every):
        raise UserError(
            f"train.accumulate: {pairs_per_process} pairs a process do not divide into "
            f"{train.accumulate} parts of a multiple of "
            f"train.english_every ({train.english_every})"
        )


def _report_fertility(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Say and write, once a run, how many tokens a Chinese character costs."""
    path = config.out_dir / "fertility.json"
    if not path.is_file():
        by_domain = fertility(config.data.corpus, tokenizer)
        print("tokens a Chinese character: " + ", ".join(f"{domain} {cost:.2f}" for domain, cost in by_domain.items()))
        path.write_text(json.dumps(by_domain, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _sizes(tokens: TokenStore) -> dict[str, int]:
    return {domain: len(rows) for domain, rows in tokens.train.items()}
