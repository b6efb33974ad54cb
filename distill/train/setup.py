"""From a configuration to what the training loop needs: files by the main process, then objects by every process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from data.cli import UserError
from data.files import write_json
from data.loader.batches import BatchDataset, BatchSchedule, Vocabulary
from data.loader.mixture import MixtureStage, mixture_stages
from data.loader.token_store import DomainTokens, TokenStore
from data.loader.tokenise import check_corpus, write_token_store
from distill.distributed import resolve_precision, tune_device
from distill.geometry import read_geometry
from distill.losses import EmptyPrompt, Hidden, KvMetric, LossesConfig, Readout
from distill.student.base import ClipStudent, StudentEncoder, vocabulary_of
from distill.student.chinese_bpe import fertility
from distill.student.extended import ExtendedStudent, Graft
from distill.text_tower import Pretrained, StateLayer, padded_ids
from distill.train import checkpoint
from distill.train.batch import SKIPPED_LAYER, BatchLoader, Teacher, anchor_vectors
from distill.train.config import RunConfig
from distill.train.memory import expected_memory, tower_shape
from distill.train.metrics import validate
from distill.train.pair import FirstEncoder, check_first_encoder, check_geometry, encoder_place
from distill.train.run_folder import claim_run_dir, read_graft, student_tokenizer_of
from distill.train.task import EmptyPromptTarget, LossConstants, Task

_VALIDATION_ROWS = 500  # a domain
GPU_LAUNCH_COST = 4096
"""Positions that a GPU computes in the time that it takes to launch one more pass: 1,100 kernels for 12 layers."""


def validate_losses(config: RunConfig, width: int) -> None:
    """UserError for losses that teacher (of `width`), student or steps cannot give, with the key and the fix."""
    losses, share = config.losses, config.train.full_share
    for name, loss in (("readout", losses.readout), ("empty_prompt", losses.empty_prompt)):
        if loss and share == 0:
            raise UserError(
                f"losses.{name}: has terms on max-length steps alone, and train.full_share is 0; give it a share"
            )
    if losses.kv_metric and losses.kv_metric.chinese_padding and share == 0:
        raise UserError("losses.kv_metric.chinese_padding: only max-length steps have padding; set train.full_share")
    positionwise: tuple[type, ...] = (Readout, EmptyPrompt)
    if not config.student.kind.shares_english_tokens:
        positionwise = (Readout, EmptyPrompt, Hidden, KvMetric)
        for name, compared in (("hidden", losses.hidden), ("kv_metric", losses.kv_metric)):
            if compared and share == 0:
                raise UserError(
                    f"losses.{name}: the student's English tokens are not the teacher's, so positions compare on "
                    f"max-length steps alone, and train.full_share is 0; give it a share, or losses.{name}: null"
                )
    if share < 1 and all(isinstance(loss, positionwise) for loss in losses.enabled):
        name, else_ = ("losses.readout", " else") if losses.readout else ("losses", "")
        raise UserError(
            f"{name}: nothing{else_} has terms on dynamically padded steps; set train.full_share: 1, or add a loss"
        )
    if losses.translation and config.student.xlmr is None and width % losses.translation.decoder.heads:
        heads = losses.translation.decoder.heads
        raise UserError(f"losses.translation.decoder.heads: {heads} heads do not divide the width {width}")
    if losses.unet_geometry is not None:
        check_geometry(config, losses.unet_geometry, width)
    if config.states == "penultimate":
        _check_norms(losses)


def _check_norms(losses: LossesConfig) -> None:
    """UserError where only cosines look at the states of a language: without a final norm their length is then free."""
    hidden, alignment, readout, kv_metric = losses.hidden, losses.alignment, losses.readout, losses.kv_metric
    squared = bool(hidden and (hidden.l1 or hidden.l2))
    english = [hidden and squared and hidden.english, kv_metric and kv_metric.english, readout and readout.english]
    chinese = [hidden and squared and hidden.chinese, alignment and alignment.norm, readout and readout.chinese]
    for language, weights, fix in (("English", english, "kv_metric"), ("Chinese", chinese, "alignment")):
        if not any(weights):
            raise UserError(
                f"losses.{fix}: states: penultimate have no final norm, and no loss looks at the length of the "
                f"{language} ones, which a UNet reads; add losses.{fix}: {{}}"
            )


@dataclass(frozen=True)
class PreparedRun:
    """The token store's folder, and what the main process has loaded meanwhile; others take its weights over."""

    store: Path
    pretrained: Pretrained
    graft: Graft | None = None


def prepare_run(config: RunConfig, processes: int, ahead_processes: int | None = None) -> PreparedRun:
    """Claim the run's folder, train the tokenizer, write the token store; each only where it is missing.

    `processes` will train; `ahead_processes` tokenise ahead of that, when a pair's first encoder may be untrained yet.
    """
    kind = config.student.kind
    _check_division(config, processes)
    check_corpus(config.data.corpus)
    teacher = config.load_teacher()
    validate_losses(config, teacher.width)
    if config.first_encoder:
        check_first_encoder(config.first_encoder, config, teacher, must_be_trained=ahead_processes is None)
    kind.check()
    graft = read_graft(config, teacher)
    claim_run_dir(config.out_dir, config)
    student_tokenizer = student_tokenizer_of(config, teacher).backend_tokenizer
    _report_fertility(config, student_tokenizer)
    store_root = config.data.token_store or config.out_dir / "tokens"
    store = write_token_store(
        config.data.corpus, store_root, teacher.tokenizer.backend_tokenizer, student_tokenizer, teacher.max_length,
        kind.shares_english_tokens, ahead_processes or 1,
    )  # fmt: skip
    _mixture(config, TokenStore(store))  # raises here, on one process
    return PreparedRun(store, teacher, graft)


def _check_division(config: RunConfig, processes: int) -> None:
    """UserError unless the batch divides into equal shares with whole groups of `english_every` pairs."""
    train = config.train
    if train.batch_size % processes:
        raise UserError(f"train.batch_size: {train.batch_size} pairs do not divide among {processes} processes")
    pairs_per_process = train.batch_size // processes
    if processes > 1 and pairs_per_process % train.english_every:
        raise UserError(
            f"train.english_every: {pairs_per_process} pairs a process are no multiple of "
            f"{train.english_every}; ranks would read other English than one process"
        )


def _report_fertility(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Print and write the tokens per Chinese character, once a run."""
    path = config.out_dir / "fertility.json"
    if not path.is_file():
        by_domain = dict(fertility(config.data.corpus, tokenizer))
        print("tokens a Chinese character: " + ", ".join(f"{domain} {cost:.2f}" for domain, cost in by_domain.items()))
        write_json(by_domain, path)


def _mixture(config: RunConfig, tokens: TokenStore) -> list[MixtureStage]:
    sizes = {domain: len(rows) for domain, rows in tokens.train.items()}
    return mixture_stages(sizes, config.data.mixture, config.train.steps, config.train.batch_size)


@dataclass(frozen=True)
class TrainSetup:
    """Everything the training loop needs: loader, model with losses, teacher, validation set."""

    task: Task
    teacher: Teacher
    loader: BatchLoader
    valid: Mapping[str, DomainTokens]
    teacher_vocabulary: Vocabulary

    def validate(self) -> dict[str, float]:
        """Validation metrics of the student; see `validation.validate`."""
        student = self.task.student
        pad_ids = self.teacher_vocabulary.pad_id, student.vocabulary.pad_id
        return validate(self.valid, self.teacher, student, *pad_ids, self.teacher.device, _VALIDATION_ROWS)

    def expected_memory(self, config: RunConfig, processes: int) -> dict[str, int]:
        """Expected bytes of a process by what they hold; empty for a student that is no CLIP text tower."""
        student = self.task.student
        if not isinstance(student, ClipStudent):
            return {}
        weights = [*student.parameters()]
        trained = sum(weight.numel() for weight in self.task.trainable().values())
        counts = self.teacher.num_weights, sum(weight.numel() for weight in weights), trained
        shape, first = tower_shape(student.text.config, *counts), self.task.first_shape()
        return expected_memory(shape, config, processes, first)


def build_setup(
    config: RunConfig, accelerator: Accelerator, store: Path, pretrained: Pretrained, graft: Graft | None = None
) -> TrainSetup:
    """Init order: student (which starts as the teacher), teacher, task, data."""
    train, kind, device = config.train, config.student.kind, accelerator.device
    tokenizer = kind.load_tokenizer(config.out_dir / "tokenizer", "out_dir")
    resumed = bool(checkpoint.saved_steps(config.out_dir / "checkpoints"))
    tokens = TokenStore(store)
    pairs = None if resumed or config.init else tokens.train
    student = kind.build(pretrained, tokenizer, pairs, device.type == "cpu")
    if graft and isinstance(student, ExtendedStudent):
        graft.apply(student)
    student.to(device)
    if train.recompute:
        student.enable_gradient_checkpointing()
    teacher = Teacher(pretrained, device)
    precision = resolve_precision(train.precision, device)
    tune_device(precision, device)
    teacher_vocabulary = vocabulary_of(pretrained.tokenizer, pretrained.max_length)
    loader = build_loader(config, accelerator, tokens, teacher_vocabulary, student.vocabulary)
    constants = build_loss_constants(config, teacher, pretrained.tokenizer, tokenizer, student)
    if config.losses.similarity:
        count, window = config.losses.similarity.anchors, config.data.window
        anchors = anchor_vectors(loader, teacher, train.steps, count, window, train.tokens_at_once)
        constants = replace(constants, anchors=anchors)
    if precision == "bf16":
        teacher.convert_to_bf16()  # after the empty prompt and the anchors, which are in float32
        if constants.first:
            constants.first.convert_to_bf16()
    if compiles(train.compile, device):
        student.compile(dynamic=True)
        teacher.compile()
    return TrainSetup(Task(student, config.losses, constants), teacher, loader, tokens.valid, teacher_vocabulary)


def compiles(setting: bool | Literal["auto"], device: torch.device) -> bool:
    """Whether `train.compile` compiles the towers on `device`."""
    return device.type == "cuda" and find_spec("triton") is not None if setting == "auto" else setting


def build_loader(
    config: RunConfig, accelerator: Accelerator, tokens: TokenStore, teacher: Vocabulary, student: Vocabulary
) -> BatchLoader:
    """The batches of this rank; the main process prints the mixture."""
    train, mixture = config.train, _mixture(config, tokens)
    if accelerator.is_main_process:
        for stage in mixture:
            rows = {domain: len(tokens.train[domain]) for domain in stage.shares}
            shares = (f"{domain} {100 * share:.3g}% of {rows[domain]:,}" for domain, share in stage.shares.items())
            print(f"mixture from step {stage.start}: " + ", ".join(shares))
    schedule = BatchSchedule(train.seed, train.batch_size, config.data.window, train.full_share)
    ranks = accelerator.process_index, accelerator.num_processes
    batches = BatchDataset(tokens.train, mixture, schedule, teacher, student, *ranks)
    # A GPU would launch more passes for about what they save; FSDP gathers whole layers; XLM-R is no CLIP tower.
    whole = accelerator.device.type != "cpu" or train.shard or compiles(train.compile, accelerator.device)
    pooled_zh = not (whole or config.student.xlmr or config.losses.uses_zh_states)
    return BatchLoader(batches, train.english_every, config.losses.uses_zh_padding, train.clip_skip, pooled_zh)


def build_loss_constants(
    config: RunConfig,
    teacher: Teacher,
    teacher_tokenizer: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    student: StudentEncoder,
) -> LossConstants:
    """Inputs of the losses that are the same in every step, on the teacher's device."""
    losses, device = config.losses, teacher.device
    geometry = read_geometry(losses.unet_geometry, device) if losses.unet_geometry else None
    if geometry is not None and geometry.widths:
        geometry = geometry.of_encoder(encoder_place(config, geometry, student.state_width))
    first: FirstEncoder | None = None
    if config.first_encoder and losses.readout:
        first = FirstEncoder(config.first_encoder, tokenizer, device, config.train.tokens_at_once)
    empty: EmptyPromptTarget | None = None
    if losses.empty_prompt:
        ids, student_ids = (
            padded_ids(each, [""], student.vocabulary.max_length).to(device) for each in (teacher_tokenizer, tokenizer)
        )
        layers: list[StateLayer | None] = [None, *([SKIPPED_LAYER] if config.train.clip_skip else [])]
        empty = EmptyPromptTarget(student_ids, {layer: teacher(ids, layer) for layer in layers})
    launch_cost = 0 if device.type == "cpu" else GPU_LAUNCH_COST
    return LossConstants(empty, geometry, config.student.kind.shares_english_tokens, first, launch_cost)
