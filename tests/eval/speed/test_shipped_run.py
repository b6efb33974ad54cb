"""The benchmark of a configuration's run: launches by hand, and the command in small."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from data.cli import UserError
from distill.geometry import read_geometry
from distill.train.main import make_accelerator
from distill.train.metrics import TermAverages
from distill.train.setup import build_setup, prepare_run
from distill.train.trainer import Trainer
from distill.unet_geometry import write_geometry
from eval.speed import measure
from eval.speed.measure import LaunchCounter
from eval.speed.shipped_run import ShippedRunOptions, fake_processes, main, random_geometry, run_config


def test_launches_by_hand() -> None:
    """Views and allocations launch nothing; a product, a sum and a fused update one each, a backward pass its own."""
    one, other = torch.randn(3, 4), torch.randn(3, 4)
    weight = torch.nn.Parameter(torch.randn(4, 2))
    with LaunchCounter() as counter:
        product = one.view(12).view(3, 4).detach() @ other.t()
        product.sum()
        torch.empty(5)
    assert dict(counter.kernels) == {"mm": 1, "sum": 1}
    with LaunchCounter() as counter:
        (one @ weight).sum().backward()  # type: ignore[no-untyped-call]
    # Forward two; backward: the one that starts it, and one product for the weight (the sum's gradient is a view).
    assert dict(counter.kernels) == {"mm": 2, "sum": 1, "ones_like": 1}


def test_a_step_waits_for_nothing_on_the_device(config: Path, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """No value of a tensor is read by the host, which would wait for all kernels before it."""
    width = json.loads((teacher / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    write_geometry(random_geometry(width, queries=4), tmp_path / "unet.safetensors", {})
    options = ShippedRunOptions(config, corpus, batch_size=8, work=tmp_path / "w", options=["--train.ema=0.9"])
    run = run_config(options, 2048)
    accelerator = make_accelerator(run)
    prepared = prepare_run(run, 1)
    setup = build_setup(run, accelerator, prepared.store, prepared.pretrained)
    trainer = Trainer(setup, run.train, accelerator, tmp_path / "w")
    averages = TermAverages()
    with LaunchCounter() as counter:
        for step in range(2):  # a padded one, and one of max length
            terms = trainer.step(step, setup.loader)
            averages.add(terms, 8, terms["grad_norm"].isfinite())
    assert counter.kernels.total() > 500
    assert not {"_local_scalar_dense", "nonzero", "masked_select"} & counter.kernels.keys()


def test_all_reduces_by_hand() -> None:
    with fake_processes(8), LaunchCounter() as counter:
        assert dist.get_world_size() == 8
        dist.all_reduce(torch.zeros(1))
        dist.all_reduce(torch.zeros(5000))
        dist.all_reduce(torch.zeros(64, 64))
    assert (counter.all_reduces, counter.scalar_all_reduces) == (3, 2)
    assert not dist.is_initialized()


@pytest.fixture
def config(teacher: Path, tmp_path: Path) -> Path:
    """A run with the losses of Stable Diffusion 1.5's."""
    path = tmp_path / "run.yaml"
    losses = f"{{empty_prompt: {{weight: 0.1}}, readout: {{chinese: 1.0}}, unet_geometry: {tmp_path}/unet.safetensors}}"
    lines = (
        f"teacher: {teacher}", "out_dir: elsewhere", "data: {corpus: elsewhere}", f"losses: {losses}",
        "train: {batch_size: 2048, full_share: 0.5, precision: fp32}",
    )  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_command(
    config: Path, teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)  # put back after --device has set it
    width = json.loads((teacher / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    write_geometry(random_geometry(width, queries=4), tmp_path / "unet.safetensors", {})
    work = tmp_path / "work"
    arguments = ["--config", str(config), "--corpus", str(corpus), "--work", str(work), "--launches", "true"]
    arguments += ["--device", "cpu", "--precision", "bf16"]
    products = list[str]()

    def in_fp32(precision: str) -> float:  # a CPU without bf16 takes minutes for a large product in it
        products.append(precision)
        return measure.peak_flops("fp32")

    monkeypatch.setattr("eval.speed.shipped_run.peak_flops", in_fp32)
    main([*arguments, "--batch-size", "8", "--steps", "2", "--options", "[--losses.affinity.weight=0.1]"])
    result = json.loads((work / "result.json").read_text(encoding="utf-8"))
    assert [result["settings"]["precision"]] == products == ["bf16"]
    assert result["settings"]["batch size"] == {"configuration": 2048, "measured": 8}
    assert {"EmptyPrompt", "Readout", "Affinity"} <= set(result["settings"]["losses"])
    assert result["pairs a second"] > 0
    assert result["tokens a second"] > result["pairs a second"]
    assert 0 < result["MFU"] < 1
    hours = result["hours"]
    assert hours["150 M pairs"] == pytest.approx(150e6 / result["pairs a second"] / 3600, rel=0.01)
    assert hours["41 M pairs"] == pytest.approx(hours["150 M pairs"] * 41 / 150, rel=0.01)
    assert result["peak memory, GiB"].keys() == {"resident, whole process", "expected on a GPU"}
    assert all(value > 0 for value in result["peak memory, GiB"].values())
    padded, full = result["launches"]["padded step"], result["launches"]["max-length step"]
    assert padded["kernels"] > 100
    assert 100 < full["kernels"] < 1000  # the student in one pass, the teacher converted before the run; 1,135 without
    assert full["all_reduces"] >= full["scalar all_reduces"]


def test_mistakes_are_one_line(config: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"steps \* train\.full_share \(0\.5\) must be whole"):
        main(["--config", str(config), "--corpus", str(corpus), "--steps", "3", "--work", str(tmp_path / "w")])
    with pytest.raises(UserError, match=r"--config: no such file .*absent\.yaml"):
        main(["--config", str(tmp_path / "absent.yaml"), "--corpus", str(corpus)])
    with pytest.raises(UserError, match=r"--device tpu9: "):
        main(["--config", str(config), "--corpus", str(corpus), "--device", "tpu9"])


def test_a_random_geometry_has_the_size_of_stable_diffusions(tmp_path: Path) -> None:
    write_geometry(random_geometry(48), tmp_path / "geometry.safetensors", {})
    geometry = read_geometry(tmp_path / "geometry.safetensors", torch.device("cpu"))
    assert geometry.width == 48
    assert len(geometry.layers) == 16
    assert geometry.layers[0].key.shape == (320, 48)
    assert geometry.metric.trace().item() == pytest.approx(48, rel=1e-4)
