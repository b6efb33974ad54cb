"""Recomputed activations: the same loss and gradient, fewer saved tensors; and the launch files shipped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from distill.train import trainer
from tests.conftest import REPOSITORY
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _train, _weights


def test_recomputing_changes_memory_alone(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command, from its first step on: fewer bytes are kept for the backward pass, equal weights."""
    kept: dict[bool, list[int]] = {False: [], True: []}
    step = trainer.Trainer.step
    for recompute, sizes in kept.items():

        def measured(self: trainer.Trainer, number: int, loader: Any, sizes: list[int] = sizes) -> Any:  # noqa: ANN401
            def keep(tensor: torch.Tensor) -> torch.Tensor:
                sizes[-1] += tensor.nbytes
                return tensor

            sizes.append(0)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                return step(self, number, loader)

        tree = run_options(teacher, corpus, tmp_path / str(recompute))
        tree["train"] |= {"recompute": recompute, "eval_every": 6, "full_share": 1.0}
        monkeypatch.setattr(trainer.Trainer, "step", measured)
        _train(write_config(tmp_path / "c.yaml", tree), monkeypatch)
    assert max(kept[True]) < min(kept[False]) / 2
    one, other = (_weights(tmp_path / str(recompute), 6) for recompute in kept)
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("name", "machines"), [("ddp", 1), ("multi-node", 2)])
def test_accelerate_reads_the_launch_files(name: str, machines: int) -> None:
    """It refuses unknown keys; precision is the run's own affair."""
    config = load_config_from_file(str(REPOSITORY / "configs" / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes) == (machines, 8 * machines)
    assert config.distributed_type == "MULTI_GPU"
    assert config.mixed_precision == "no"
