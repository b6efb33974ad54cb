"""Writes the students of SDXL's two encoders as the parts of its pipeline, in one folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from data.cli import UserError
from data.files import atomic_folder, write_json, write_text
from distill.export.folder import (
    Writer,
    check_output_folder,
    checked_clip_config,
    verify_model,
    verify_tokenizer,
    write_model,
    write_tokenizer,
)
from distill.export.formats import GOLDEN_PROMPTS
from distill.text_tower import encode_ids, padded_ids
from distill.train.checkpoint import OpenedRun, open_run
from distill.train.pair import PARTS

MODEL_CLASSES: dict[str, Any] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
"""As SDXL's own: the first without projection."""


@dataclass(frozen=True)
class PairPart:
    """One encoder of the pair, and its folder's name."""

    name: str
    run: OpenedRun
    model: CLIPTextModelWithProjection

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The student's tokenizer, with the padding of its encoder."""
        return self.run.tokenizer


def open_pair(folder: Path, step: int | None) -> list[PairPart]:
    """Both students of a run of `configs/sdxl.yaml`; UserError unless they read the same tokens."""
    runs = {part: open_run(folder / stage, step) for stage, part in PARTS.items()}
    parts = [PairPart(part, run, run.student.to_clip()) for part, run in runs.items()]
    if parts[0].tokenizer.get_vocab() != parts[1].tokenizer.get_vocab():
        raise UserError(f"--run {folder}: its two students read different tokens; train g/ on this l/")
    return parts


def export_pair(parts: Sequence[PairPart], out: Path, card: str, writers: Sequence[Writer] = ()) -> None:
    """Write both students to the folder `out`, whole or not at all: loaded again, they are as they were trained.

    `golden/` holds prompts, the ids of both encoders [20, max_length], `prompt_embeds` [20, max_length, width] and
    `pooled_prompt_embeds` [20, dim] as SDXL's pipeline computes them, in float32.
    """
    check_output_folder(out)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with atomic_folder(out) as folder:
        for part in parts:
            _write_part(part, folder)
        _write_golden(parts, folder / "golden")
        for writer in writers:  # of files alone, the same for both encoders
            writer(folder, parts[0].model, parts[0].tokenizer)
        write_text(card, folder / "README.md")


def _write_part(part: PairPart, folder: Path) -> None:
    config, model_class = checked_clip_config(part.model, part.tokenizer), MODEL_CLASSES[part.name]
    weights = {name: weight.detach().contiguous().clone() for name, weight in part.model.state_dict().items()}
    if model_class is CLIPTextModel:
        del weights["text_projection.weight"]
    write_model(weights, config, model_class, folder / part.name)
    tokenizer_folder = folder / part.name.replace("text_encoder", "tokenizer")
    write_tokenizer(part.tokenizer, tokenizer_folder, config.max_position_embeddings)
    verify_model(folder / part.name, model_class, part.model, part.tokenizer)
    verify_tokenizer(tokenizer_folder, part.tokenizer)


@torch.inference_mode()
def _write_golden(parts: Sequence[PairPart], folder: Path) -> None:
    ids = [padded_ids(part.tokenizer, GOLDEN_PROMPTS, part.model.config.max_position_embeddings) for part in parts]
    outputs = [encode_ids(part.model, each, "penultimate") for part, each in zip(parts, ids, strict=True)]
    vectors = {
        "input_ids": ids[0], "input_ids_2": ids[1], "pooled_prompt_embeds": outputs[1].pooled.clone(),
        "prompt_embeds": torch.cat([output.hidden_states for output in outputs], dim=2),
    }  # fmt: skip
    folder.mkdir()
    write_json(GOLDEN_PROMPTS, folder / "prompts.json")
    save_file(vectors, folder / "vectors.safetensors", {"format": "pt"})
