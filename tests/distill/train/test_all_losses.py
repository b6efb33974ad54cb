"""Runs with every loss, and losses that a run cannot give."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from data.cli import UserError
from distill.geometry import CrossAttention, Geometry
from distill.train import main
from distill.train.checkpoint import open_run
from distill.train.config import parse_config
from distill.train.setup import validate_losses
from distill.unet_geometry import write_geometry
from tests.distill.tiny_clip import run_options, write_config


@pytest.fixture(scope="module")
def geometry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads of two, for states of width 32."""
    path = tmp_path_factory.mktemp("geometry") / "g.safetensors"
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(n, m, generator=random) for n, m in ((3, 4), (4, 32), (4, 32)))
    write_geometry(Geometry(torch.eye(32), (CrossAttention("a", 2, 0.7, query, key, value),)), path, {})
    return path


ALL = {
    "affinity": {},
    "similarity": {"anchors": 10},
    "alignment": {"schedule": {"start": 0.5}},
    "empty_prompt": {},
    "kv_metric": {"chinese_padding": 0.5},
    "readout": {"english": 0.5},
}


def test_a_run_with_every_loss(
    teacher: Path, corpus: Path, geometry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tight steps, the third full: its terms come and go with it."""
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["losses"] = {**ALL, "unet_geometry": str(geometry)}
    tree["train"] |= {"steps": 3, "log_every": 1}
    monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", tree)])
    main.main()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [line for line in map(json.loads, lines) if "loss" in line]
    every = {"pooled_zh", "pooled_en", "hidden_en", "contrastive", "affinity", "alignment", "alignment_norm"}
    every |= {"similarity_zh", "similarity_en"}
    on_full = {"empty_prompt", "kv_metric_zh", "readout_zh", "readout_en"}
    for line, full in zip(logged, (False, False, True), strict=True):
        terms = every | {"kv_metric_en"} | (on_full if full else set())
        assert line.keys() == {"step", "pairs", "loss", "lr", "grad_norm", "pairs_per_second", *terms}
        assert line["loss"] == pytest.approx(sum(line[term] for term in terms), rel=1e-4)
    assert 0 < logged[2]["empty_prompt"] < 0.1
    assert logged[0]["alignment"] == 0 < logged[2]["alignment"]
    assert 0 < logged[2]["readout_zh"] < 10
    assert open_run(tmp_path / "run", None).student.to_clip().config.hidden_size == 32


@pytest.mark.parametrize(
    ("losses", "share", "message"),
    [
        ({"readout": {}}, 0.5, "losses.readout: needs losses.unet_geometry, a file that "),
        ({"readout": {}, "unet_geometry": "FILE"}, 0, "losses.readout: has terms on max-length steps alone"),
        ({"empty_prompt": {}}, 0, "losses.empty_prompt: has terms on max-length steps alone"),
        ({"kv_metric": {"chinese_padding": 1}, "unet_geometry": "FILE"}, 0, "losses.kv_metric.chinese_padding: only"),
        (
            {"pooled": None, "hidden": None, "contrastive": None, "readout": {}, "unet_geometry": "FILE"},
            0.5,
            "losses.readout: nothing else has terms on dynamically padded steps; set train.full_share: 1",
        ),
        ({"kv_metric": {}, "unet_geometry": "/nowhere"}, 0.5, "losses.unet_geometry: no file /nowhere; write it with"),
        ({"readout": {"queries": 0}, "unet_geometry": "FILE"}, 0.5, "losses.readout.queries: 0 is below 1"),
        ({"alignment": {"smoothing": 0}}, 0.5, "losses.alignment: smoothing must be above 0"),
        ({"affinity": {"schedule": {"start": 1}}}, 0.5, "losses: a schedule needs 0 <= start < stop"),
        ({"translation": {"decoder": {"heads": 3}}}, 0.5, "losses.translation.decoder.heads: 3 heads do not divide"),
        ({"translation": {"zh_from_zh": 0, "zh_from_en": 0}}, 0.5, "losses.translation: every direction has weight 0"),
    ],
)
def test_what_cannot_be_given_is_refused(
    losses: dict[str, Any], share: float, message: str, geometry: Path, tmp_path: Path
) -> None:
    tree = run_options(tmp_path, tmp_path, tmp_path / "run")
    tree["losses"] = {key: str(geometry) if value == "FILE" else value for key, value in losses.items()}
    tree["train"]["full_share"] = share
    with pytest.raises(UserError) as refused:
        validate_losses(parse_config(write_config(tmp_path / "c.yaml", tree)), width=32)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (
            {},
            "losses.kv_metric: states: penultimate have no final norm, and no loss looks at the length of the ",
        ),
        ({"kv_metric": {}}, "losses.alignment: states: penultimate have no final norm"),
        ({"kv_metric": {}, "alignment": {"norm": 0}}, "losses.alignment: states: penultimate"),
        ({"hidden": {"chinese": 1}, "alignment": {}}, "losses.kv_metric: states: penultimate"),
        ({"hidden": {"chinese": 1, "l2": 1}}, ""),
        ({"kv_metric": {}, "alignment": {}}, ""),
    ],
)
def test_cosines_alone_do_not_serve_states_without_a_final_norm(
    losses: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tree = {**run_options(tmp_path, tmp_path, tmp_path / "run"), "states": "penultimate", "losses": losses}
    run = parse_config(write_config(tmp_path / "c.yaml", tree))
    if not message:
        validate_losses(run, width=32)
        return
    with pytest.raises(UserError) as refused:
        validate_losses(run, width=32)
    assert str(refused.value).startswith(message)


def test_a_geometry_of_another_teacher_is_refused(geometry: Path, tmp_path: Path) -> None:
    tree = run_options(tmp_path, tmp_path, tmp_path / "run")
    tree["losses"] = {"kv_metric": {}, "unet_geometry": str(geometry)}
    run = parse_config(write_config(tmp_path / "c.yaml", tree))
    with pytest.raises(UserError, match="reads states of width 32, the teacher's have 64; take the UNet that belongs"):
        validate_losses(run, width=64)
    other = tmp_path / "other.safetensors"
    save_file({"metric": torch.eye(2)}, other)
    with safe_open(other, framework="pt") as file:
        assert file.metadata() is None
    with pytest.raises(UserError, match="is no UNet geometry"):
        validate_losses(replace(run, losses=replace(run.losses, unet_geometry=other)), width=2)
