"""Weights spread over two processes: the numbers of one process, and checkpoints that know nothing of it."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from distill import distributed
from distill.train import checkpoint
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _records, _step_gradients, _train, _weights


def _options(teacher: Path, corpus: Path, out: Path, train: dict[str, Any]) -> dict[str, Any]:
    tree = run_options(teacher, corpus, out)
    tree["losses"] = {"empty_prompt": {}, "translation": {}}
    tree["train"].update(train, shard=True)
    return tree


def _train_spread(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on two processes, each of which really has a share of every weight."""

    def checked(student: nn.Module, layers: Iterable[nn.Module], decoder: nn.Module, *where: Any) -> None:  # noqa: ANN401
        distributed.shard(student, layers, decoder, *where)
        for weight in (*student.parameters(), *decoder.parameters()):
            assert isinstance(weight, DTensor)
            assert weight.to_local().numel() <= (len(weight) + 1) // 2 * weight.numel() // len(weight)
        (folder / f"spread-{torch.distributed.get_rank()}").touch()

    monkeypatch.setattr("distill.train.trainer.shard", checked)
    results: list[Any] = two_processes(_step_gradients(arguments), folder)
    assert [result["processes"].tolist() for result in results] == [[2], [2]]
    assert len(list(folder.glob("spread-*"))) == 2


def _stored(run: Path) -> tuple[dict[str, dict[str, torch.Tensor]], list[dict[str, float]]]:
    """Weights, moments and means after six steps, and what was logged."""
    return {name: _weights(run, 6, name) for name in ("weights", "optimizer", "average")}, _records(run)


def _assert_alike(found: Any, wanted: Any) -> None:  # noqa: ANN401
    for name, theirs in wanted[0].items():
        assert found[0][name].keys() == theirs.keys()
        for key in theirs:
            torch.testing.assert_close(found[0][name][key], theirs[key], atol=1e-4, rtol=1e-3)
    for a, b in zip(found[1], wanted[1], strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_two_shares_are_one_whole(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps with a decoder, in parts; then the last checkpoint is removed, and they go on from their third step's.

    Looking at held-out rows between the steps, with the mean in the weights' place, changes nothing.
    """
    train = {"tokens_at_once": 40, "ema": 0.5, "eval_every": 2}
    _train(write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "one", train)), monkeypatch)
    arguments = write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "two", train))
    _train_spread(arguments, tmp_path, monkeypatch)
    assert checkpoint.saved_steps(tmp_path / "two" / "checkpoints") == [3, 6]
    _assert_alike(_stored(tmp_path / "two"), _stored(tmp_path / "one"))
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000006")
    _train_spread(arguments, tmp_path, monkeypatch)  # from the third step's, which two shares wrote
    _assert_alike(_stored(tmp_path / "two"), _stored(tmp_path / "one"))


def test_two_shares_go_on_where_one_process_was(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint is removed: they start from the third step's, whole batches, with states made twice."""
    train = {"recompute": True, "ema": 0.5, "eval_every": 2}
    arguments = write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "run", train))
    _train(arguments, monkeypatch)
    wanted = _stored(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    _train_spread(arguments, tmp_path, monkeypatch)
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [3, 6]
    _assert_alike(_stored(tmp_path / "run"), wanted)


def test_layers_in_bf16_are_gathered_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the traffic on a GPU; states and gradients are those of autocast in one process, what is kept is float32.

    Layers without norms stand in for a GPU's, whose autocast computes norms in float32.
    """
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [distributed.sharding_policy(*each).param_dtype for each in (("bf16", cpu), ("fp32", cuda))] == [None, None]
    policy = distributed.sharding_policy("bf16", cuda)
    monkeypatch.setattr(distributed, "sharding_policy", lambda *_: policy)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    inputs, used = torch.randn(2, 4, 8), list[torch.dtype]()

    def backward(rank: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            states: torch.Tensor = layers(inputs[rank])
        states.float().square().mean().backward()  # type: ignore[no-untyped-call]

    def work(rank: int) -> dict[str, torch.Tensor]:
        for layer in layers:
            layer.register_forward_hook(lambda layer, *_: used.append(layer.weight.dtype))
        distributed.shard(layers, layers, None, cpu, "bf16")
        backward(rank)
        assert used == [torch.bfloat16] * 2
        return {n: distributed.full_tensor(w.grad) for n, w in layers.named_parameters() if w.grad is not None}

    results: list[Any] = two_processes(work, tmp_path)
    for rank in range(2):
        backward(rank)
    for result in results:
        for name, weight in layers.named_parameters():
            assert weight.grad is not None
            assert result[name].dtype == torch.float32
            torch.testing.assert_close(result[name], weight.grad / 2, atol=5e-3, rtol=2e-2)


def test_gradients_leave_while_the_backward_pass_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket a layer: the last layer's is sent before the first has a gradient, what the pass misses at the end."""
    monkeypatch.setattr(distributed, "_BUCKET", 20)
    torch.manual_seed(0)
    layers, inputs = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))), torch.randn(2, 8, 4)

    def work(rank: int) -> dict[str, torch.Tensor]:
        missed, sent = nn.Parameter(torch.zeros(4)), list[bool]()
        missed.grad = torch.full((4,), float(rank))
        send = torch.distributed.all_reduce

        def counted(tensor: torch.Tensor, async_op: bool) -> object:
            sent.append(layers[0].weight.grad is None)
            return send(tensor, async_op=async_op)

        monkeypatch.setattr("distill.distributed.dist.all_reduce", counted)
        with distributed.averaged_gradients([*reversed([*layers.parameters()]), missed]):
            layers(inputs[rank]).square().mean().backward()
            in_pass = len(sent)
        gradients = {name: weight.grad for name, weight in layers.named_parameters() if weight.grad is not None}
        return {**gradients, "missed": missed.grad, "in pass": torch.tensor(in_pass), "early": torch.tensor(sent)}

    results: list[Any] = two_processes(work, tmp_path)
    layers(inputs).square().mean().backward()
    for result in results:
        assert result["in pass"] == 3
        assert result["early"].tolist() == [True, True, False, False]
        assert result["missed"].tolist() == [0.5] * 4
        for name, weight in layers.named_parameters():
            torch.testing.assert_close(result[name], weight.grad)
