"""The shipped configurations: every one is read, and takes a step at full size on random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from safetensors import safe_open

from data.files import read_json
from data.loader.mixture import mixture_stages
from distill.geometry import CrossAttention, Geometry
from distill.train import checkpoint
from distill.train.config import parse_config
from distill.train.pair import PARTS, parse_runs
from distill.unet_geometry import write_geometry
from eval.speed.measure import Shape, random_teacher
from tests.conftest import REPOSITORY
from tests.distill.tiny_clip import teacher_tokenizer, write_corpus
from tests.distill.tiny_xl import SDXL, write_xl

CONFIGS = {"clip-b32": "vit-b-32", "sd15": "vit-l-14", "sdxl-l": "vit-l-14", "sd2": "vit-h-14", "sdxl-g": "vit-bigg-14"}
WEIGHTS = {"clip-b32": 37.8, "sd15": 85.1, "sdxl-l": 85.1, "sd2": 302.3, "sdxl-g": 629.7}
"""Millions in the layers: 12 w^2 + 13 w each, of width w."""


def _file(name: str) -> str:
    return str(REPOSITORY / "configs" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("name", "states", "padding"),
    [
        ("clip-b32", "last", None),
        ("sd15", "last", None),
        ("sd2", "penultimate_normed", "!"),
        ("sdxl-l", "penultimate", None),
        ("sdxl-g", "penultimate", "!"),
    ],
)
def test_what_a_unet_reads(name: str, states: str, padding: str | None) -> None:
    run = parse_config(["--config", _file(name)])
    assert (run.states, run.padding) == (states, padding)
    for_a_unet = name != "clip-b32"
    assert (run.train.full_share > 0) is for_a_unet, "Stable Diffusion reads all slots"
    assert (run.losses.empty_prompt is not None) is for_a_unet
    assert (run.losses.readout is not None) is (name in ("sd15", "sd2")), "of one of SDXL's two encoders there is none"
    assert (run.losses.alignment is not None) is name.startswith("sdxl")
    for processes in (1, 2, 4, 8):
        assert run.train.batch_size // processes % run.train.english_every == 0


def test_every_configuration_is_read() -> None:
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        for run in parse_runs(["--config", str(path)]):
            assert run.out_dir.parts


def _unet_geometry(width: int, path: Path) -> Path:
    """Random maps of the shapes of Stable Diffusion's sixteen cross-attentions."""
    inner = [320] * 5 + [640] * 5 + [1280] * 6
    layers = tuple(
        CrossAttention(str(place), wide // 64, 0.125, torch.randn(64, wide), *torch.randn(2, wide, width) / width**0.5)
        for place, wide in enumerate(inner)
    )
    write_geometry(Geometry(torch.eye(width), layers), path, {})
    return path


def _alone(command: list[str], log: Path) -> tuple[float, float]:
    """Run a command in a process of its own: its peak of resident memory in GiB, and CPU seconds."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=REPOSITORY, env={**os.environ, "ACCELERATE_USE_CPU": "true"}, stdout=file,
            stderr=file,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
    assert status == 0, log.read_text()[-2000:]
    return used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_full_size_step(name: str, tmp_path: Path) -> None:
    """Random weights under the tiny tokenizer, one full step of four pairs, alone in a process; 24 GB are enough."""
    shape: Shape = CONFIGS[name]  # type: ignore[assignment]
    changes = {
        "teacher": random_teacher(shape, teacher_tokenizer(), tmp_path), "out_dir": tmp_path / "run",
        "data.corpus": write_corpus(tmp_path / "corpus"), "train.steps": 1, "train.batch_size": 4,
        "train.full_share": 1, "data.window": 1, "train.log_every": 1,
        "student.extended.vocabulary.words": 12, "student.extended.vocabulary.min_character_count": 1,
    }  # fmt: skip
    if parse_config(["--config", _file(name)]).losses.unet_geometry:
        width = {"vit-l-14": 768, "vit-h-14": 1024}[shape]
        changes["losses.unet_geometry"] = _unet_geometry(width, tmp_path / "unet.safetensors")
    arguments = [part for key, value in changes.items() for part in (f"--{key}", str(value))]
    gibibytes, seconds = _alone(["scripts/distill.py", "--config", _file(name), *arguments], tmp_path / "log")
    assert gibibytes < 24
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [1]
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["pooled_en"] < 1e-4, "English starts as the teacher's"
    assert first["grad_norm"] > 0
    with safe_open(tmp_path / "run" / "checkpoints" / "step-00000001" / "weights.safetensors", "pt") as file:
        sizes = [torch.Size(file.get_slice(key).get_shape()).numel() for key in file.keys() if ".layers." in key]  # noqa: SIM118
    assert sum(sizes) / 1e6 == pytest.approx(WEIGHTS[name], abs=0.1)
    print(name, f"{gibibytes:.1f} GiB, {seconds:.0f} CPU seconds")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_pair_of_sdxl_at_full_size(tmp_path: Path) -> None:
    """Random weights, the UNet tiny but for what it reads: geometry, a step of each stage, export, a picture."""
    xl = write_xl(tmp_path, sizes=SDXL)
    changes = {
        "teacher": xl, "data.corpus": write_corpus(tmp_path / "corpus"), "out_dir": tmp_path / "run",
        "losses.unet_geometry": tmp_path / "unet.safetensors", "train.steps": 1, "train.batch_size": 4,
        "train.full_share": 1, "train.log_every": 1, "data.window": 1,
        "student.extended.vocabulary.words": 12, "student.extended.vocabulary.min_character_count": 1,
    }  # fmt: skip
    arguments = [part for key, value in changes.items() for part in (f"--{key}", str(value))]
    commands = {
        "geometry": ["-m", "distill.unet_geometry", "--unet", str(xl), "--out", str(changes["losses.unet_geometry"])],
        "training": ["scripts/distill.py", "--config", _file("sdxl"), *arguments],
        "export": [
            "scripts/export.py", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "student"),
            "--pipeline", str(xl), "--pipeline-out", str(tmp_path / "copy"),
        ],
    }  # fmt: skip
    for name, command in commands.items():
        gibibytes, seconds = _alone(command, tmp_path / "log")
        print(name, f"{gibibytes:.1f} GiB, {seconds:.0f} CPU seconds")
        assert gibibytes < 24
    for stage, width in (("l", 768), ("g", 1280)):
        first = json.loads((tmp_path / "run" / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert first["grad_norm"] > 0
        assert ("readout_zh" in first) is (stage == "g")
        assert read_json(tmp_path / "student" / PARTS[stage] / "config.json")["hidden_size"] == width
    stock: Any = diffusers.StableDiffusionXLPipeline
    pipeline = stock.from_pretrained(tmp_path / "copy")
    states, _, pooled, _ = pipeline.encode_prompt("一只猫", do_classifier_free_guidance=True)
    assert (states.shape, pooled.shape) == ((1, 77, 2048), (1, 1280))
    assert torch.isfinite(states).all()
    assert pipeline("一只猫", num_inference_steps=1).images[0].size == (64, 64)


def test_the_mixture_names_the_domains_of_the_large_corpus() -> None:
    """Read over a run's configuration; 6,500 prompts are drawn ten times in 20,000 steps, not 126 times."""
    corpus = yaml.safe_load((REPOSITORY / "configs" / "corpus" / "skyclip-150m.yaml").read_text(encoding="utf-8"))
    run = parse_config(["--config", _file("sd15"), "--config", _file("mixture/skyclip-150m")])
    mixture = run.data.mixture
    assert mixture.weights
    assert mixture.weights.keys() == {source["domain"] for source in corpus["sources"]}
    sizes = dict.fromkeys(mixture.weights, 50_000_000) | {"prompt": 6_500}
    (stage,) = mixture_stages(sizes, mixture, run.train.steps, run.train.batch_size)
    assert stage.shares["prompt"] * run.train.steps * run.train.batch_size == pytest.approx(65_000)
