"""What some losses need besides a batch: checked at start-up, then made."""

import torch
from transformers import PreTrainedTokenizerFast

from data.command import UserError
from distill.config import RunConfig
from distill.geometry import Geometry, read_geometry
from distill.losses import Hidden, KvMetric, LossesConfig, Readout
from distill.student.extended import ExtendedConfig
from distill.task import EmptyPrompt, Extras
from distill.teacher import Teacher


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
