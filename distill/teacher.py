"""The frozen teacher: outside `prepare`, outside checkpoints, always in evaluation mode."""

import torch

from distill import tower
from distill.pretrained import Pretrained
from distill.reading import Reading, Targets
from distill.states import States


class Teacher:
    """A frozen CLIP text tower that turns English ids into targets."""

    def __init__(self, pretrained: Pretrained, device: torch.device) -> None:
        """Take over the model of `pretrained`; it is changed and moved."""
        model = tower.prepare(pretrained.model, on_cpu=device.type == "cpu")
        model.eval()  # type: ignore[no-untyped-call]
        model.requires_grad_(False).to(device=device)  # type: ignore[call-arg]
        self._model, self._states, self.device = model, pretrained.states, device

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> States:
        """Targets of `ids`, int64 [batch, slots]."""
        return tower.run(self._model, ids, self._states)

    def targets(self, reading: Reading) -> Targets:
        """What the student is to say of a reading."""
        pairs = self(reading.teacher)
        again = reading.teacher_english
        return Targets(pairs, pairs.rows(reading.rows) if again is None else self(again))

    def compile(self) -> None:
        """Let torch compile the tower, for any number of slots."""
        self._model.compile(dynamic=True)
