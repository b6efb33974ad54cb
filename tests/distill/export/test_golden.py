"""Golden vectors against this installation, and against older ones that the environment names."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.export.folder import export
from distill.export.formats import write_golden
from distill.export.pipeline import write_pipeline
from eval import golden

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recorded(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    export(model, tokenizer, tmp_path / "student", [write_golden])
    return tmp_path / "student"


def test_an_export_holds_here(
    recorded: Path, teachers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pipeline(recorded, teachers, tmp_path / "pipeline")
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
    recorded: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
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


def test_a_config_that_loads_and_cannot_run(recorded: Path) -> None:
    path = recorded / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": None}))
    with pytest.raises(UserError, match=r"its model or text_encoder/ cannot run .*; export it again"):
        golden.main([str(recorded)])


def test_a_folder_without_golden_vectors(student: Path) -> None:
    with pytest.raises(UserError, match=r"no golden vectors to read .*--parts golden"):
        golden.main([str(student)])


def change(vectors: Path, **changed: torch.Tensor | None) -> None:
    every = {**load_file(vectors), **changed}
    save_file({name: value for name, value in every.items() if value is not None}, vectors)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"last_hidden_state": torch.zeros(20, 77, 32)}, r"last_hidden_state is \[20, 77, 32\] .*, not \[20, 77, 24\]"),
        ({"text_embeds": torch.zeros(20, 16).half()}, "text_embeds is .*float16, not .*float32"),
        ({"text_embeds": None}, "no text_embeds"),
        ({"input_ids": torch.full((20, 77), 523)}, "input_ids from 523 to 523, where the model has 523 rows"),
        ({"input_ids": torch.full((20, 77), -1)}, "input_ids from -1 to -1"),
        ({"input_ids": torch.zeros(20, 1, dtype=torch.int64)}, r"input_ids is \[20, 1\]"),
    ],
)
def test_vectors_of_another_model(recorded: Path, changed: dict[str, torch.Tensor | None], said: str) -> None:
    change(recorded / "golden" / "vectors.safetensors", **changed)
    with pytest.raises(UserError, match=rf"vectors\.safetensors: {said}.*; export again with --parts golden"):
        golden.main([str(recorded)])


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (b"{}", r"prompts\.json: no list of prompts"),
        (b"[]", r"prompts\.json: no list of prompts"),
        (b'"x"', r"prompts\.json: no list of prompts"),
        (b"[1]", "no golden vectors to read"),
        (b'["\\ud800"]', "no golden vectors to read"),
        (b'["\xff"]', "no golden vectors to read"),
        (b"[" * 100_000, "no golden vectors to read"),
        (b'["a cat"]', r"vectors\.safetensors: input_ids is \[20, 77\] .*, not \[1, 77\]"),
    ],
)
def test_prompts_that_are_none(recorded: Path, prompts: bytes, said: str) -> None:
    (recorded / "golden" / "prompts.json").write_bytes(prompts)
    with pytest.raises(UserError, match=said):
        golden.main([str(recorded)])


def test_a_pipeline_that_is_none(recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first before anything is loaded; and whatever is loaded shows no bars."""
    for name in ("absent", "empty"):
        with pytest.raises(UserError, match=rf"--pipeline .*{name}: no model_index\.json"):
            golden.main([str(recorded / "absent"), "--pipeline", str(tmp_path / name)])
        (tmp_path / "empty").mkdir(exist_ok=True)
    (tmp_path / "empty" / "model_index.json").write_text("{}")
    transformers.utils.logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # whatever other tests did
    with pytest.raises(UserError, match="cannot be loaded"):
        golden.main([str(recorded), "--pipeline", str(tmp_path / "empty")])
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("python", os.environ.get("YUQIAO_OTHER_PYTHONS", "").split())
def test_an_export_holds_under_other_releases(recorded: Path, teachers: Path, python: str) -> None:
    """YUQIAO_OTHER_PYTHONS names interpreters with other releases of transformers and diffusers."""
    write_pipeline(recorded, teachers, recorded.parent / "pipeline")
    done = subprocess.run(
        [python, "-m", "eval.golden", recorded, "--pipeline", recorded.parent / "pipeline"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
