import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.cli import UserError
from data.miniature.scene import Scene, Thing, scene_json
from distill.api import load_text_encoder
from eval.generation.__main__ import run_generation
from eval.generation.compare import LIMIT_DB, latent_distances, prediction_errors, psnr, squared_norm_ratio
from eval.generation.pipeline import (
    SamplingConfig,
    UnetText,
    decode_latents,
    encode_text,
    load_pipeline,
    make_solver,
    pipeline_text_encoder,
    sample,
    seeded_noise,
    unconditional_text,
)
from eval.generation.pipeline import Trajectory as Trajectory
from eval.generation.prompts import read_prompts
from eval.generation.recogniser import Recogniser, load_recogniser
from eval.metrics import mean_interval
from tests.distill.tiny_xl import write_xl
from tests.eval.random_pipeline import write_encoder, write_pipeline

FAST = ["--drawing.steps", "3", "--seeds", "2", "--drawing.batch", "3"]
LEAST = ["--drawing.steps", "1", "--seeds", "1", "--limit", "2"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    scene = scene_json(Scene((Thing("cat", "red"),), "sea"))
    texts = ("the cat", "the dog", "a cat on the dog", "dog dog dog")
    rows = [{"en": text, "zh": "猫" * (i + 1), "mixed": f"猫 {text}", "scene": scene} for i, text in enumerate(texts)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_the_teacher_as_its_own_student_is_a_perfect_twin(pipeline: Path, prompts: Path, tmp_path: Path) -> None:
    found = run_generation(["--pipeline", str(pipeline), "--student", str(pipeline), "--prompts", str(prompts),
                 "--out", str(tmp_path / "out"), *FAST])  # fmt: skip
    assert found["psnr"]["student-en"]["mean"] == LIMIT_DB
    assert found["latent_distance"]["student-en"]["mean"] == 0
    assert found["prediction_error"]["student-en"]["mean"] == 0
    assert found["empty_prompt_error"]["student"]["mean"] == 0
    assert found["prediction_error"]["teacher-empty"]["mean"] == pytest.approx(1)
    assert found["prediction_error"]["teacher-wrong"]["mean"] > 0.01
    assert found["psnr"]["student-zh"]["mean"] < 60  # the teacher reads bytes of Chinese and draws something else
    assert len(found["latent_distance_by_step"]["student-zh"]) == 3
    each = found["by_prompt"]["prediction_error"]["student-zh"]
    assert np.mean(each) == pytest.approx(found["prediction_error"]["student-zh"]["mean"], abs=1e-4)
    written = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert written["shown"][0]["zh"] == "猫"
    assert written["settings"]["prompts"] == 4
    assert str(pipeline / "unet" / "diffusion_pytorch_model.safetensors") in written["settings"]["sha256"]
    names = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    rows = ("teacher-en", "student-en", "student-zh", "student-mixed")
    assert names == {f"{i:03d}.{row}.png" for i in range(4) for row in rows}
    assert (tmp_path / "out" / "grid.png").is_file()


def test_another_student_is_a_worse_twin_and_the_floor_is_drawn(pipeline: Path, prompts: Path, tmp_path: Path) -> None:
    student = write_encoder(tmp_path / "student", seed=9)
    found = run_generation(
        [
            "--pipeline",
            str(pipeline),
            "--student",
            str(student),
            "--prompts",
            str(prompts),
            "--floor",
            "true",
            "--out",
            str(tmp_path / "out"),
            "--limit",
            "3",
            *FAST,
        ]
    )
    for name in ("student-en", "student-zh", "student-mixed", "teacher-zh"):
        assert found["latent_distance"][name]["mean"] > 0
        low, high = found["psnr"][name]["ci95"]
        assert low <= found["psnr"][name]["mean"] <= high
    assert found["empty_prompt_error"]["student"]["mean"] > 0


def test_the_recogniser_reads_what_was_drawn(pipeline: Path, prompts: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    (tmp_path / "recogniser").mkdir()
    save_file(Recogniser().state_dict(), tmp_path / "recogniser" / "model.safetensors")
    found = run_generation(["--pipeline", str(pipeline), "--student", str(pipeline), "--prompts", str(prompts),
                 "--recogniser", str(tmp_path / "recogniser"), "--out", str(tmp_path / "out"), *LEAST])  # fmt: skip
    assert found["things"]["teacher-en"] == found["things"]["student-en"]
    assert set(found["read_exact"]) == {"teacher-en", "student-en", "student-zh", "student-mixed"}


@pytest.mark.parametrize(
    ("size", "said"),
    [({"width": 32}, r"width 32, but the UNet of .* attends to 24; take a student"), ({"slots": 64}, "64 slots, but")],
)
def test_a_student_of_another_size_is_refused_in_one_line(
    size: dict[str, int], said: str, pipeline: Path, prompts: Path, tmp_path: Path
) -> None:
    student = write_encoder(tmp_path / "student", **size)
    words = ["--pipeline", str(pipeline), "--student", str(student), "--prompts", str(prompts)]
    with pytest.raises(UserError, match=said):
        run_generation([*words, "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('{"en": "a", "zh": "b"}\n{"en": "a"}', r"prompts.jsonl:2: not a prompt"),
        ('{"en": "a", "zh": "b"}\nnot json', r"prompts.jsonl:2: not a prompt"),
        ('{"en": "a", "zh": "b"}', "1 prompts; at least two"),
        ('{"en": "a", "zh": "b", "scene": {"things": []}}', r":1: not a prompt"),
        ("[1]\n[2]", ":1: not a prompt"),
        ('{"en": "a", "zh": " "}', ":1: an empty prompt"),
        ('{"en": "a", "zh": "' + "猫" * 10_000 + '"}', ":1: a prompt of 10000 characters; 2000 are the most"),
        ('{"en": "a", "zh": "猫", "mixed": "\\u0007"}', r":1: the control character U\+0007 in a prompt"),
        ('{"en": "a \\u202ecat", "zh": "猫"}', r":1: the control character U\+202E in a prompt"),
        ('{"en": "a", "zh": "\\ud800"}', r":1: the control character U\+D800 in a prompt"),
        ('{"en": "a", "zh": "\\u200b\\ufeff"}', ":1: an empty prompt"),
        ('{"en": null, "zh": "b"}', ":1: None is no prompt; en, zh and mixed are texts"),
        ('{"en": "a", "zh": "b", "mixed": 7}', ":1: 7 is no prompt"),
        ("[" * 99_999, ":1: not a prompt .*recursion"),
    ],
)
def test_bad_prompts_name_their_line(tmp_path: Path, lines: str, complaint: str) -> None:
    (tmp_path / "prompts.jsonl").write_text(lines)
    with pytest.raises(UserError, match=complaint):
        read_prompts(tmp_path / "prompts.jsonl")


def test_what_is_missing_is_named(pipeline: Path, prompts: Path, tmp_path: Path) -> None:
    out = ["--prompts", str(prompts), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"--student: no folder .*nothing"):
        run_generation(["--pipeline", str(pipeline), "--student", str(tmp_path / "nothing"), *out])
    with pytest.raises(UserError, match=r"--pipeline .*nothing"):
        run_generation(["--pipeline", str(tmp_path / "nothing"), "--student", str(pipeline), *out])
    with pytest.raises(UserError, match="--device nonsense: Expected one of cpu"):
        run_generation(["--pipeline", str(pipeline), "--student", str(pipeline), *out, "--device", "nonsense"])
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        run_generation(["--pipeline", str(pipeline), "--student", str(pipeline), "--recogniser", str(tmp_path), *out])
    with pytest.raises(UserError, match="no such file"):
        read_prompts(tmp_path / "none.jsonl")


def test_a_pipeline_without_an_unet_is_refused(pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / "broken")
    (tmp_path / "broken" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="no Stable Diffusion"):
        load_pipeline(str(tmp_path / "broken"), torch.device("cpu"))


@pytest.mark.parametrize("part", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_pipeline_is_refused(pipeline: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(pipeline, tmp_path / "broken")
    (tmp_path / "broken" / part).write_text("[]")
    with pytest.raises(UserError, match="no Stable Diffusion"):
        load_pipeline(str(tmp_path / "broken"), torch.device("cpu"))


def test_a_pipeline_without_its_tokenizer_or_with_a_pickle_is_refused_in_one_line(
    pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, said in (("tokenizer", "no vocabulary in its tokenizer/"), ("unet", "no Stable Diffusion")):
        folder = tmp_path / name
        shutil.copytree(pipeline, folder)
        if name == "tokenizer":
            shutil.rmtree(folder / name)
        else:
            weights = next((folder / name).glob("*.safetensors"))
            weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(UserError, match=said):
            load_pipeline(str(folder), torch.device("cpu"))
    assert capfd.readouterr() == ("", "")


def test_a_student_with_broken_weights_or_another_tokenizer_is_refused(tmp_path: Path) -> None:
    student = write_encoder(tmp_path / "student")
    path = student / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    for value, said in (
        (weights[name] * float("nan"), "the weight .*token_embedding.weight is not finite"),
        (weights[name][:-1], "its tokenizer has .* they do not belong together"),
    ):
        save_file({**weights, name: value.contiguous()}, path, {"format": "pt"})
        config = json.loads((student / "text_encoder" / "config.json").read_text())
        (student / "text_encoder" / "config.json").write_text(json.dumps({**config, "vocab_size": len(value)}))
        with pytest.raises(UserError, match=said):
            load_text_encoder(str(student), "--student")
    (student / "text_encoder" / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no text_encoder/ in safetensors"):
        load_text_encoder(str(student), "--student")


def test_a_recogniser_with_other_weights_is_refused(tmp_path: Path) -> None:
    for content in ({"a": torch.zeros(1)}, None):
        if content:
            save_file(content, tmp_path / "model.safetensors")
        else:
            (tmp_path / "model.safetensors").write_bytes(b"no")
        with pytest.raises(UserError, match="not the recogniser's weights"):
            load_recogniser(tmp_path)


def test_drawing_is_a_pure_function_of_seed_and_states(pipeline: Path) -> None:
    whole = load_pipeline(str(pipeline), torch.device("cpu"))
    student = load_text_encoder(str(pipeline), "--student")
    text, empty = encode_text(student, ["the cat", "the dog"]), encode_text(student, [""])
    start = seeded_noise(whole, [5, 6])
    torch.testing.assert_close(start[1:], seeded_noise(whole, [6]))
    how = SamplingConfig(steps=4, guidance=3)
    second = text.rows([1])
    both, one = sample(whole, start, text, empty, how), sample(whole, start[1:], second, empty, how)
    assert both.latents.shape == (5, 2, 4, 8, 8)
    torch.testing.assert_close(both.latents[:, 1:], one.latents, atol=1e-4, rtol=1e-4)
    assert decode_latents(whole, one.latents[-1]).shape == (1, 64, 64, 3)
    free = sample(whole, start[1:], second, empty, SamplingConfig(steps=4, guidance=1))
    assert (free.latents[-1] - one.latents[-1]).abs().max() > 1e-3


def test_prediction_error_is_one_for_empty_and_zero_for_the_teacher(pipeline: Path) -> None:
    whole = load_pipeline(str(pipeline), torch.device("cpu"))
    teacher = load_text_encoder(str(pipeline), "--student")
    text, empty = encode_text(teacher, ["the cat", "the dog"]), encode_text(teacher, [""])
    path = sample(whole, seeded_noise(whole, [1, 2]), text, empty, SamplingConfig(steps=3))
    half = UnetText((text.states + empty.states) / 2)
    found = prediction_errors(whole, path, {"t": text, "e": empty, "half": half}, "t", "e", probes=2)
    np.testing.assert_allclose(found["t"], 0)
    np.testing.assert_allclose(found["e"], 1, rtol=1e-5)
    assert 0 < found["half"].max() < 1.5


def test_measures_by_hand() -> None:
    black = np.zeros((2, 4, 4, 3), np.uint8)
    grey = black.copy()
    grey[1] = 51  # a fifth of the range: 20 log10 5
    np.testing.assert_allclose(psnr(black, grey), [99, 13.9794], rtol=1e-5)
    np.testing.assert_allclose(squared_norm_ratio(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]])), [0.25])
    one = Trajectory(torch.tensor([[[9.0, 9.0]], [[3.0, 4.0]]])[..., None, None], torch.tensor([1]))
    two = Trajectory(torch.tensor([[[9.0, 9.0]], [[3.0, 3.0]]])[..., None, None], torch.tensor([1]))
    np.testing.assert_allclose(latent_distances(one, two), [[0.2]])
    low, high = mean_interval(np.array([0.0, 1.0] * 200))
    assert low == pytest.approx(0.45, abs=0.02)
    assert high == pytest.approx(0.55, abs=0.02)


def test_an_sdxl_pipeline_is_drawn_with(prompts: Path, tmp_path: Path) -> None:
    """Its own encoders as the student give the same pictures; states and pooled states are those of the pipeline."""
    xl = write_xl(tmp_path)
    words = ["--pipeline", str(xl), "--student", str(xl), "--prompts", str(prompts)]
    found = run_generation([*words, *LEAST, "--out", str(tmp_path / "out")])
    assert found["psnr"]["student-en"]["mean"] == LIMIT_DB
    assert found["prediction_error"]["student-en"]["mean"] == 0
    assert found["empty_prompt_error"]["student"]["mean"] == 0
    assert found["prediction_error"]["student-zh"]["mean"] > 0
    whole = load_pipeline(str(xl), torch.device("cpu"))
    text = encode_text(pipeline_text_encoder(whole), ["red! cat", ""])
    states, _, pooled, _ = whole.encode_prompt(["red! cat", ""], device="cpu", do_classifier_free_guidance=False)
    assert text.pooled is not None
    torch.testing.assert_close(text.states, states)
    torch.testing.assert_close(text.pooled, pooled)


@torch.no_grad()
def test_an_sdxl_picture_is_the_pipelines_own(tmp_path: Path) -> None:
    """The latents of StableDiffusionXLPipeline from the same noise: pooled states, time ids, zeros as no prompt."""
    xl = write_xl(tmp_path)
    whole = load_pipeline(str(xl), torch.device("cpu"))
    whole.scheduler = make_solver(whole, 3)
    start = seeded_noise(whole, [5])
    wanted = whole("red cat", latents=start, num_inference_steps=3, guidance_scale=4.0, output_type="latent").images
    teacher = pipeline_text_encoder(whole)
    away = unconditional_text(whole, encode_text(teacher, [""]))
    assert whole.config.force_zeros_for_empty_prompt
    path = sample(whole, start, encode_text(teacher, ["red cat"]), away, SamplingConfig(steps=3, guidance=4))
    torch.testing.assert_close(path.latents[-1], wanted, atol=1e-4, rtol=1e-4)


def test_what_no_student_serves_is_refused_in_one_line(pipeline: Path, prompts: Path, tmp_path: Path) -> None:
    xl, out = write_xl(tmp_path), tmp_path / "out"
    words = ["--pipeline", str(xl), "--student", str(pipeline), "--prompts", str(prompts), "--out", str(out)]
    with pytest.raises(UserError, match="one of the two has a text encoder and the other two"):
        run_generation(words)
    for weights in xl.rglob("*.safetensors"):
        weights.write_bytes(b"")  # it is known before any is read
    index = xl / "model_index.json"
    told = json.loads(index.read_text(encoding="utf-8"))
    for change, said in (
        ({"_class_name": "Mine"}, "a Mine reads other encoders"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "a StableDiffusion3Pipeline reads other encoders"),
        ({"text_encoder": [None, None]}, "it has no text_encoder"),
        ({"_class_name": "Mine", "text_encoder_2": [None, None]}, "its UNet reads 'text_time' beside states"),
    ):
        index.write_text(json.dumps(told | change), encoding="utf-8")
        with pytest.raises(UserError, match=f"--pipeline .*xl: {said}"):
            run_generation(words)
    assert not out.exists()


def test_drawings_appear_whole_and_replace_only_drawings(
    pipeline: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["--pipeline", str(pipeline), "--student", str(pipeline), "--prompts", str(prompts), "--out", str(out)]
    run_generation([*words, *LEAST])
    (out / "pictures" / "999.student-zh.png").write_bytes(b"of an earlier run")
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr("eval.generation.__main__.write_json", lambda value, path: 1 / 0)  # the last file of all
        with pytest.raises(ZeroDivisionError):
            run_generation([*words, *LEAST])
    assert sorted(tmp_path.rglob("*")) == before
    run_generation([*words, *LEAST])
    assert not (out / "pictures" / "999.student-zh.png").exists()
    (tmp_path / "mine" / "pictures").mkdir(parents=True)
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    for place, said in (("mine", "something else is there"), ("prompts.jsonl", "something else"), ("a/b", "no folder")):
        with pytest.raises(UserError, match=f"--out .*{said}"):
            run_generation([*words[:-1], str(tmp_path / place)])
