"""Read-out error: what a UNet's cross-attentions read from a student's prompts, against the teacher's English."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.cli import UserError
from distill.api import TextEncoder, load_student
from distill.geometry import Geometry, attend, read_geometry
from distill.text_tower import StateLayer, encode_ids
from eval.metrics import Values


class UnetReadout:
    """Student and teacher, float32 on `device`, and the geometry of the UNet that reads `state_layer` of them."""

    def __init__(
        self, student: str, teacher: str, geometry: Path, state_layer: StateLayer, device: torch.device
    ) -> None:
        """Load the three; UserError where the states have another width than the UNet reads."""
        self.geometry: Geometry = read_geometry(geometry, device, "--geometry")
        self.state_layer: StateLayer = state_layer
        self.encoders = {
            "student": load_student(student, device, "--student"), "teacher": load_student(teacher, device, "--clip"),
        }  # fmt: skip
        for model, encoder in self.encoders.items():
            if encoder.hidden_size != self.geometry.width:
                raise UserError(
                    f"--geometry {geometry}: its UNet reads states of width {self.geometry.width}, those of the "
                    f"{model} have {encoder.hidden_size}; compute it from a UNet of this teacher"
                )

    @torch.inference_mode()
    def errors(self, model: str, texts: Sequence[str], english: Sequence[str], batch_size: int = 16) -> Values:
        """[texts]: squared difference to the teacher's read-out of `english`, over its variance between prompts.

        The mean over the cross-attentions, as in the loss `readout`; texts are padded or cut to the full length.
        """
        errors, norms = [], []
        for start in tqdm(range(0, len(texts), batch_size), desc="read-outs", unit="batch", leave=False, disable=None):
            rows = slice(start, start + batch_size)
            target = self._states(self.encoders["teacher"], english[rows])
            states = self._states(self.encoders[model], texts[rows])
            pairs = [(attend(layer, states), attend(layer, target)) for layer in self.geometry.layers]
            errors.append(torch.stack([(own - right).square().mean((1, 2, 3)) for own, right in pairs], dim=1))
            norms.append(torch.stack([right.square().mean((1, 2, 3)) for _, right in pairs], dim=1))
        relative = torch.cat(errors) / torch.cat(norms).mean(dim=0) / self.geometry.shares
        values: Values = relative.mean(dim=1).cpu().numpy().astype(np.float64)
        return values

    def _states(self, encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
        model: Any = encoder.model  # load_student's, with projection
        ids = encoder.tokenizer(
            list(texts), padding="max_length", max_length=encoder.max_length, truncation=True, return_tensors="pt"
        ).input_ids
        return encode_ids(model, ids.to(model.device), self.state_layer).hidden_states
