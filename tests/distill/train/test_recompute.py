"""Recomputed activations: the same loss and gradient, fewer saved tensors; and the launch files shipped."""

from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from distill import text_tower
from distill.student.chinese_bpe import VocabularyConfig
from distill.student.extended import ExtendedConfig
from distill.text_tower import load_pretrained
from tests.conftest import REPOSITORY


def test_recomputing_changes_memory_alone(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    config = ExtendedConfig(VocabularyConfig(12, 1), "none")
    config.build_tokenizer(load_pretrained(str(teacher)), corpus, tmp_path / "tokenizer")
    words = text_tower.load_clip_tokenizer(str(tmp_path / "tokenizer"), "t")
    ids = words(["草地上的一只红色的猫", "a cat"], padding=True, return_tensors="pt")["input_ids"]
    gradients, kept = [], []
    for recompute in (False, True):
        student = config.build(load_pretrained(str(teacher)), words, {}, on_cpu=True).train()
        if recompute:
            student.enable_gradient_checkpointing()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = student(ids).hidden_states.pow(3).sum()
        kept.append(sum(sizes))
        loss.backward()
        gradients.append({name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize(("name", "machines"), [("ddp", 1), ("multi-node", 2)])
def test_accelerate_reads_the_launch_files(name: str, machines: int) -> None:
    """It refuses unknown keys; precision is the run's own affair."""
    config = load_config_from_file(str(REPOSITORY / "configs" / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes) == (machines, 8 * machines)
    assert config.distributed_type == "MULTI_GPU"
    assert config.mixed_precision == "no"
