"""SDXL's two text encoders: one configuration for both, and the first, finished one while the second is taught."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from data.cli import Tree, UserError, merged
from distill.geometry import Geometry, read_geometry
from distill.loading import ENCODER_PARTS
from distill.losses.base import FirstStates
from distill.student.base import vocabulary_of
from distill.text_tower import Pretrained, text_mask
from distill.train import checkpoint
from distill.train.batch import Teacher, TrainBatch
from distill.train.config import RunConfig, checked_run, read_options, read_stored_config
from distill.train.passes import chunked

PARTS = dict(zip(("l", "g"), ENCODER_PARTS, strict=True))
"""The stages in their order, each with its part of a pipeline."""


def parse_runs(arguments: Sequence[str] | None = None) -> list[RunConfig]:
    """The run of the command line, or the two of its `stages`."""
    tree = read_options(arguments)
    return stage_configs(tree) if "stages" in tree else [checked_run(tree)]


def stage_configs(tree: Tree) -> list[RunConfig]:
    """The runs of `stages`: what stands there goes before the common keys.

    `teacher` is the pipeline, `init` a student of both, unless a stage names its own. Each encoder's states are those
    before its last layer; the second is padded with "!", as SDXL's tokenizer_2 does, and follows the first.
    """
    common, stages = {key: value for key, value in tree.items() if key != "stages"}, tree["stages"]
    if not isinstance(stages, dict) or stages.keys() - PARTS.keys():
        raise UserError("stages: gives keys of the two encoders of SDXL, `l` and `g`; see configs/sdxl.yaml")
    runs: list[RunConfig] = []
    for name, part in PARTS.items():
        own = stages.get(name) or {}
        if not isinstance(own, dict):
            raise UserError(f"stages.{name}: {own!r} is no mapping; its keys are those of a run")
        given = merged({"states": "penultimate", **common}, own, RunConfig)
        if "out_dir" in given:
            given["out_dir"] = str(Path(given["out_dir"]) / name)
        for model in ("teacher", "init", "init_teacher"):
            if model in given and model not in own:
                given[model] = f"{given[model]}/{part}"
        if runs:
            given = {"padding": "!", **given, "first_encoder": str(runs[0].out_dir)}
        runs.append(checked_run(given))
    return runs


def check_geometry(config: RunConfig, path: Path, width: int) -> None:
    """UserError unless the losses of a run with states of `width` can use the UNet's geometry of `path`."""
    geometry = read_geometry(path, torch.device("cpu"))
    if config.losses.readout and not geometry.layers:
        raise UserError(
            f"losses.readout: {path} holds the metric of one of two encoders, which are read together; "
            "use losses.kv_metric"
        )
    if config.losses.readout and geometry.widths and config.first_encoder is None:
        raise UserError(
            f"losses.readout: the UNet of {path} reads two encoders side by side, and this run knows the states of "
            "one; name the finished run of the first in first_encoder, or use losses.alignment"
        )
    read = geometry.widths[encoder_place(config, geometry, width)] if geometry.widths else geometry.width
    if width != read:
        raise UserError(
            f"losses.unet_geometry: {path} reads states of width {read}, the teacher's have {width}; "
            "take the UNet that belongs to this teacher"
        )


def encoder_place(config: RunConfig, geometry: Geometry, width: int) -> int:
    """Which of the two encoders of `geometry` a run with states of `width` teaches, 0 or 1."""
    return 1 if config.first_encoder or width not in geometry.widths else geometry.widths.index(width)


def check_first_encoder(folder: Path, second: RunConfig, teacher: Pretrained, must_be_trained: bool) -> None:
    """UserError unless the run of `folder` can be the first of `second`, whose teacher is `teacher`."""
    key = f"first_encoder: {folder}"
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{key} holds no run; train the first encoder first, or use configs/sdxl.yaml for both")
    first = read_stored_config(folder / "config.yaml")
    if must_be_trained and checkpoint.saved_steps(folder / "checkpoints")[-1:] != [first.train.steps]:
        raise UserError(f"{key} is not trained to its last step, {first.train.steps}; finish it first")
    if first.student.kind != second.student.kind:
        raise UserError(f"student: not that of {folder}; both encoders read the same tokens")
    first_teacher = first.load_teacher()
    if first_teacher.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise UserError(f"{key}: its teacher spells otherwise than {second.teacher!r}; they are of two pipelines")


class FirstEncoder:
    """Teacher and student of a finished run, on the ids of the second encoder's batches."""

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerFast, device: torch.device, tokens_at_once: int | None
    ) -> None:
        """`tokenizer` is the second student's: as the first's but for the padding."""
        run = checkpoint.open_run(folder, None)
        teacher = run.config.load_teacher()
        self._student = run.student.to(device).eval().requires_grad_(False)
        self._teacher, self._tokens_at_once = Teacher(teacher, device), tokens_at_once
        self.num_weights = self._teacher.num_weights + sum(weight.numel() for weight in self._student.parameters())
        self.width = teacher.width
        second_pad = vocabulary_of(tokenizer, teacher.max_length).pad_id
        self._student_ids = _first_ids(run.tokenizer, second_pad)
        self._teacher_ids = _first_ids(teacher.tokenizer, second_pad)

    def convert_to_bf16(self) -> None:
        """Convert the teacher's products once, as those of the second's teacher."""
        self._teacher.convert_to_bf16()

    @torch.no_grad()
    def states(self, batch: TrainBatch) -> FirstStates:
        """States of the first encoder for the texts of a batch."""
        student = [
            chunked(self._student, self._student_ids(ids), self._tokens_at_once).hidden_states
            for ids in (batch.student_zh_ids, batch.student_en_ids)
        ]
        pairs = chunked(self._teacher, self._teacher_ids(batch.teacher_ids), self._tokens_at_once)
        if batch.teacher_en_ids is None:
            english = pairs.hidden_states[batch.english_rows]
        else:
            ids = self._teacher_ids(batch.teacher_en_ids)
            english = chunked(self._teacher, ids, self._tokens_at_once).hidden_states
        return FirstStates(student[0], pairs.hidden_states, student[1], english)


def _first_ids(first: PreTrainedTokenizerFast, second_pad: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Turns ids of the second encoder into the first's, which differ in the padding.

    The second's tokenizer reads its padding token, "!", as a special one in a text as well; the first's has it end a
    word there, as "!</w>".
    """
    vocabulary = vocabulary_of(first, 0)
    in_text = first.get_vocab().get(f"{first.convert_ids_to_tokens(second_pad)}</w>", second_pad)

    def convert(ids: torch.Tensor) -> torch.Tensor:
        text = text_mask(ids, vocabulary.eos_id)
        return torch.where(text, ids.masked_fill(ids == second_pad, in_text), vocabulary.pad_id)

    return convert
