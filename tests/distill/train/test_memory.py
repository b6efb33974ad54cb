"""The memory model against the bytes that autograd saves, at small shapes and through a run; shipped configurations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from distill import text_tower
from distill.geometry import CrossAttention
from distill.losses import (
    Affinity,
    Alignment,
    Contrastive,
    Hidden,
    KvMetric,
    LossesConfig,
    LossInput,
    Pooled,
    Similarity,
)
from distill.losses import unet as unet_losses
from distill.losses.base import scheduled_terms
from distill.text_tower import EncoderOutput
from distill.train import trainer
from distill.train.config import DataConfig, RunConfig, TrainConfig, parse_config
from distill.train.memory import TowerShape, expected_memory, loss_bytes, tower_bytes, tower_shape
from eval.speed.measure import _SIZES
from tests.conftest import REPOSITORY
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _train

PROMISES = {"clip-b32": 12, "sd15": 24, "sd2": 24, "sdxl-l": 24, "sdxl-g": 40}
"""GB of the GPU that a shipped configuration names."""
SIZES = dict(zip(PROMISES, ("vit-b-32", "vit-l-14", "vit-h-14", "vit-l-14", "vit-bigg-14"), strict=True))


@contextmanager
def _saved(known: set[int]) -> Iterator[Callable[[], int]]:
    """Counts the bytes of the storages saved for a backward pass inside, but those of `known` tensors."""
    sizes: dict[int, int] = {}
    kept: list[torch.Tensor] = []  # alive, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_towers_activations(activation: str, bf16: bool, recompute: bool) -> None:
    config = CLIPTextConfig(
        vocab_size=600, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=2,
        hidden_act=activation, projection_dim=64, eos_token_id=599,
    )  # fmt: skip
    model = text_tower.optimize_for_device(CLIPTextModelWithProjection(config), on_cpu=False).train()
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, 599, (32, 20))
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    with _saved(known) as count, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        text_tower.encode_ids(model, ids)
        measured = count()
    shape = tower_shape(config, 0, 0, 0)
    expected = tower_bytes(shape, ids.numel(), bf16, recompute)
    if recompute:  # the layer that is computed again comes in the backward pass
        expected -= tower_bytes(replace(shape, layers=1), ids.numel(), bf16, False) - ids.numel() * 4 * 128
    assert measured == pytest.approx(expected, rel=0.1)


def _outputs(rows: int, length: int, width: int, gradient: bool) -> EncoderOutput:
    states = torch.randn(rows, length, width, requires_grad=gradient)
    return EncoderOutput(states, torch.randn(rows, 16, requires_grad=gradient), torch.ones(rows, length).bool())


@pytest.mark.parametrize(
    "losses",
    [
        LossesConfig(),
        LossesConfig(hidden=Hidden(l1=1, l2=1, chinese=1), affinity=Affinity()),
        LossesConfig(similarity=Similarity(anchors=1000)),
        LossesConfig(Pooled(), Hidden(), Contrastive(), alignment=Alignment(), kv_metric=KvMetric()),
    ],
)
def test_what_losses_keep(losses: LossesConfig) -> None:
    outputs = [_outputs(rows, 40, 64, ours) for ours in (True, False) for rows in (64, 16)]
    chinese, english, target, english_target = outputs
    known = {t.untyped_storage().data_ptr() for o in outputs for t in (o.hidden_states, o.pooled, o.text_mask)}
    with _saved(known) as count:
        anchors = torch.randn(1000, 16)
        scheduled_terms(losses.enabled, LossInput(chinese, target, english, english_target, True, anchors=anchors))
        measured = count()
    assert measured == pytest.approx(loss_bytes(losses, 64, 16, 40, 64, 64), rel=0.1)


def test_the_readout_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sums and gradients, and nothing but the chunks' inputs is kept."""
    torch.manual_seed(0)
    layers = [
        CrossAttention(str(n), 2, 0.25, torch.randn(8, 32), torch.randn(32, 16), torch.randn(32, 16)) for n in range(3)
    ]
    maps = [tensor for layer in layers for tensor in (layer.query, layer.key, layer.value)]
    teacher, found = torch.randn(40, 20, 16), []
    for limit in (1 << 29, 1 << 17):
        monkeypatch.setattr(unet_losses, "READOUT_BYTES", limit)
        student = (teacher + 0.1).requires_grad_()
        known = {tensor.untyped_storage().data_ptr() for tensor in (student, teacher, *maps)}
        with _saved(known) as count:
            sums = unet_losses.readout_sums(layers, student, teacher)
            kept = count()
        (sums[0] / sums[1]).mean().backward()  # type: ignore[no-untyped-call]
        found.append((kept, sums.detach(), student.grad))
    (whole, sums, gradient), (chunked, chunked_sums, chunked_gradient) = found
    torch.testing.assert_close(chunked_sums, sums)
    torch.testing.assert_close(chunked_gradient, gradient)
    assert chunked < whole / 20


def test_a_runs_activations_through_its_command(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step of 64 pairs at once, with the attention of a GPU: what is saved is what the model says, within 10 %."""
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["train"] |= {"full_share": 1.0, "batch_size": 64, "steps": 1}
    tree["losses"] = {"hidden": {"chinese": 1.0}}  # Chinese at the maximum length
    optimize = text_tower.optimize_for_device
    monkeypatch.setattr(text_tower, "optimize_for_device", lambda model, on_cpu: optimize(model, False))
    step, seen = trainer.Trainer.step, list[int]()

    def measured(self: trainer.Trainer, number: int, loader: Any) -> Any:  # noqa: ANN401
        constants = {t.untyped_storage().data_ptr() for t in self.setup.task.parameters()}
        with _saved(constants) as count:
            terms = step(self, number, loader)
        seen.append(count())
        return terms

    monkeypatch.setattr(trainer.Trainer, "step", measured)
    arguments = write_config(tmp_path / "c.yaml", tree)
    _train(arguments, monkeypatch)
    assert "expected peak memory of a process: " in capsys.readouterr().out
    shape = tower_shape(text_tower.load_tower(str(teacher), "t").config, 0, 0, 0)
    expected = expected_memory(shape, parse_config(arguments), 1)
    working = 4 * 64 * 77 * 32
    outputs = 2 * 4 * (64 + 32) * 77 * 32  # the student's and the teacher's, which losses keep
    assert seen[0] == pytest.approx(expected["activations"] - working + outputs, rel=0.1)


def _expected(name: str) -> dict[str, int]:
    """Of a shipped configuration on one GPU, with 12,000 single characters beside its words."""
    sizes = _SIZES[SIZES[name]]  # type: ignore[index]
    width = sizes["hidden_size"]
    with torch.device("meta"):
        config = CLIPTextConfig(vocab_size=49408, intermediate_size=4 * width, projection_dim=width, **sizes)
        model = CLIPTextModelWithProjection(config)
    run = parse_config(["--config", str(REPOSITORY / "configs" / f"{name}.yaml")])
    run = replace(run, train=replace(run.train, precision="bf16"))
    weights = sum(weight.numel() for weight in model.parameters())
    new = (run.student.kind.vocabulary.words + 12_000) * width  # type: ignore[union-attr]
    frozen = 49408 * width + model.text_projection.weight.numel()
    return expected_memory(tower_shape(model.config, weights, weights + new, weights - frozen + new), run, 1)


@pytest.mark.parametrize("name", PROMISES)
def test_a_shipped_configuration_fits_its_gpu(name: str) -> None:
    """With a tenth to spare; and the table in docs/memory.md is this model's."""
    expected = _expected(name)
    assert expected["peak"] < 0.9 * PROMISES[name] * 1e9
    rows = [line.split("|") for line in (REPOSITORY / "docs" / "memory.md").read_text(encoding="utf-8").splitlines()]
    row = next(row for row in rows if len(row) > 2 and row[1].strip() == f"`{name}`")
    assert [cell.strip() for cell in row[3:-1]] == [f"{value / 1e9:.1f}" for value in expected.values()]


def test_gradients_on_their_way(tmp_path: Path) -> None:
    """Two processes hold them a second time, in the type in which they are sent."""
    run = RunConfig("teacher", DataConfig(tmp_path), tmp_path, train=TrainConfig(precision="fp32"))
    shape = TowerShape(32, 2, 128, 2, True, 77, teacher_weights=10, student_weights=10, trained_weights=1_000)
    sent = [replace(run, train=replace(run.train, bf16_gradients=bf16)) for bf16 in (False, True)]
    assert [expected_memory(shape, each, 2)["gradients and moments"] for each in sent] == [16_000, 14_000]
