"""Golden vectors against this installation, and against older ones that the environment names."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from data.command import UserError
from distill.export import export
from distill.export_golden import write_golden
from distill.export_pipeline import write_pipeline
from eval import golden

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recorded(model: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, tmp_path: Path) -> Path:
    export(model, tokenizer, tmp_path / "student", [write_golden])
    return tmp_path / "student"


def test_an_export_holds_here(
    recorded: Path, teachers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pipeline(recorded, str(teachers), tmp_path / "pipeline")
    out = tmp_path / "golden.json"
    golden.main([str(recorded), "--pipeline", str(tmp_path / "pipeline"), "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["holds"]
    assert found["pipeline"] < 1e-5
    assert set(found["equal_ids"].values()) == {20}
    assert found["precisions"]["fp32"]["states"] < 1e-5
    assert 0 < found["precisions"]["fp16"]["states"] < found["precisions"]["bf16"]["states"]
    assert capsys.readouterr().out.rstrip().endswith("\nholds")


def test_other_weights_do_not_hold(
    recorded: Path, model: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer
) -> None:
    with torch.no_grad():
        model.text_model.encoder.layers[1].mlp.fc2.bias[3] += 0.2
    kept = recorded / "golden"
    kept.rename(recorded.parent / "golden")
    export(model, tokenizer, recorded)
    (recorded.parent / "golden").rename(kept)
    with pytest.raises(SystemExit) as stopped:
        golden.main([str(recorded)])
    assert stopped.value.code == 1


@pytest.mark.parametrize("part", ["", "text_encoder"])
def test_a_pickle_is_not_read(recorded: Path, part: str) -> None:
    weights = recorded / part / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(UserError, match=r"cannot be loaded .*; export it again"):
        golden.main([str(recorded)])


def test_a_folder_without_golden_vectors(student: Path) -> None:
    with pytest.raises(UserError, match=r"no golden vectors to read .*--parts golden"):
        golden.main([str(student)])


@pytest.mark.slow
@pytest.mark.parametrize("python", os.environ.get("YUQIAO_OTHER_PYTHONS", "").split())
def test_an_export_holds_under_other_releases(recorded: Path, teachers: Path, python: str) -> None:
    """YUQIAO_OTHER_PYTHONS names interpreters with other releases of transformers and diffusers."""
    write_pipeline(recorded, str(teachers), recorded.parent / "pipeline")
    done = subprocess.run(
        [python, "-m", "eval.golden", recorded, "--pipeline", recorded.parent / "pipeline"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
