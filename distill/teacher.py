"""The frozen teacher: outside `prepare`, outside checkpoints, always in evaluation mode."""

import torch

from distill import tower
from distill.states import States


class Teacher:
    """A frozen CLIP text tower that turns English ids into targets."""

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the tower of a folder or Hub id."""
        model = tower.prepare(tower.load_tower(name, "teacher"), on_cpu=device.type == "cpu")
        model.eval()  # type: ignore[no-untyped-call]
        model.requires_grad_(False).to(device=device)  # type: ignore[call-arg]
        self._model, self.device = model, device

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> States:
        """Targets of `ids`, int64 [batch, slots]."""
        return tower.run(self._model, ids)
