import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from data.miniature.corpus import write_test
from data.miniature.scene import sample_scenes
from eval.generation.__main__ import run_generation
from eval.miniature import training_loop
from eval.miniature.dataset import rendered_images

REPOSITORY = Path(__file__).parents[3]


def test_pictures_are_rendered_once(tmp_path: Path) -> None:
    scenes = sample_scenes(5, 1, "train")
    first = rendered_images(scenes, 3, tmp_path / "a.npy")
    stamp = (tmp_path / "a.npy").stat().st_mtime_ns
    np.testing.assert_array_equal(first, rendered_images(scenes, 3, tmp_path / "a.npy"))
    assert (tmp_path / "a.npy").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="holds 5 rows, not 4"):
        rendered_images(scenes[:4], 3, tmp_path / "a.npy")


@pytest.mark.parametrize(("options", "said"), [(["--nonsense", "1"], "nonsense"), (["--xl", "--tuned"], "give one")])
def test_a_mistake_is_one_line(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(REPOSITORY / "scripts" / "build_miniature.py")
    monkeypatch.setattr(sys, "path", sys.path.copy())  # the script sets its own
    monkeypatch.setattr(sys, "argv", [script, "--work", "w", "--out", "o", *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name="__main__")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_training_computes_in_what_the_machine_is_fast_in(
    precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "resolve_precision", lambda *_: precision)
    with training_loop.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    files = [path for path in (REPOSITORY / "eval").rglob("*.py") if "torch.autocast(" in path.read_text()]
    assert [path.name for path in files] == ["training_loop.py"]  # every training asks there


@pytest.mark.slow
def test_the_whole_miniature_is_built_and_can_be_drawn_with(tmp_path: Path) -> None:
    steps = [f"--{stage}.steps=2" for stage in ("recogniser", "autoencoder", "clip", "unet")]
    command = [
        sys.executable, "scripts/build_miniature.py", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"),
        "--scenes=300", "--tested=8", "--drawn=2", "--pictures=1", "--vocabulary=700", *steps,
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(scores) == {"recogniser", "autoencoder", "clip", "pipeline"}
    assert "build_miniature.py" in (tmp_path / "out" / "CARD.md").read_text()
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) < 40e6
    write_test(tmp_path / "test", 2)
    out = tmp_path / "out"
    found = run_generation(["--pipeline", str(out / "pipeline"), "--student", str(out / "pipeline"),
                 "--prompts", str(tmp_path / "test" / "prompts.jsonl"), "--recogniser", str(out / "recogniser"),
                 "--out", str(tmp_path / "drawn"), "--seeds", "1", "--drawing.steps", "2"])  # fmt: skip
    assert found["psnr"]["student-en"]["mean"] == 99
    stock: Any = diffusers.StableDiffusionPipeline
    assert stock.from_pretrained(out / "pipeline")("a red cat", num_inference_steps=1).images[0].size == (64, 64)
    assert torch.isfinite(torch.tensor(found["things"]["teacher-en"]["mean"]))
