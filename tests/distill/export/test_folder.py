import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
)

from data.cli import UserError
from data.files import atomic_folder, replace_folder
from distill.export.folder import TOKENIZER_PROBES, checked_clip_config, export, write_tokenizer
from distill.export.main import main
from distill.train.config import DataConfig, RunConfig
from tests.eval.tiny import save_clip, text_half, tiny_clip, tiny_tokenizer

ROOT = Path(__file__).parents[3]
PROMPT = "戴帽子拿剑的猫 and the dog，8k"


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_exact_files(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student")
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    words = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"}
    weights = {"config.json", "model.safetensors"}
    assert names == (
        {f"student/{name}" for name in words | weights}
        | {f"student/text_encoder/{name}" for name in weights}
        | {f"student/tokenizer/{name}" for name in words}
    )


def test_loaded_again_it_is_the_same_model(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student")
    loaded = CLIPTextModelWithProjection.from_pretrained(tmp_path / "student")
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "student")(PROMPT).input_ids])
    assert ids.tolist() == [tokenizer(PROMPT).input_ids]
    with torch.no_grad():
        assert torch.equal(loaded(ids).text_embeds, model(ids).text_embeds)
        inside = CLIPTextModel.from_pretrained(tmp_path / "student" / "text_encoder")
        assert torch.equal(inside(ids).last_hidden_state, model(ids, output_hidden_states=True).last_hidden_state)


@pytest.mark.parametrize("wrong", [None, 2, 0])
def test_eos_token_id_is_written_out_whatever_the_model_said(
    wrong: int | None, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """None crashes current transformers, and 2 pools the largest id: here a new token above the end-of-text."""
    model.config.eos_token_id = wrong
    export(model, tokenizer, tmp_path / "student")
    for place in ("", "text_encoder"):
        config = json.loads((tmp_path / "student" / place / "config.json").read_text())
        assert config["eos_token_id"] == tokenizer.eos_token_id
        assert (config["bos_token_id"], config["pad_token_id"]) == (tokenizer.bos_token_id, tokenizer.pad_token_id)


def test_pooling_is_at_the_end_of_text_though_larger_ids_exist(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.config.eos_token_id = 2
    export(model, tokenizer, tmp_path / "student")
    loaded = CLIPTextModelWithProjection.from_pretrained(tmp_path / "student")
    ids = torch.tensor([tokenizer("猫 the cat").input_ids])
    end = ids[0].tolist().index(tokenizer.eos_token_id)
    assert ids.max() > tokenizer.eos_token_id
    with torch.no_grad():
        states = loaded.text_model(ids).last_hidden_state[0, end]
        assert torch.allclose(loaded(ids).text_embeds[0], loaded.text_projection(states), atol=1e-6)


def test_vocab_and_merges_alone_make_the_same_tokenizer(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Programs that know no tokenizer.json read these two."""
    export(model, tokenizer, tmp_path / "student")
    folder = tmp_path / "student" / "tokenizer"
    alone = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    assert alone(list(TOKENIZER_PROBES)).input_ids == tokenizer(list(TOKENIZER_PROBES)).input_ids
    assert {"<|startoftext|>", "<|endoftext|>"} <= set(json.loads((folder / "vocab.json").read_text()))


def test_weights_have_the_published_key_names(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student")
    with safe_open(tmp_path / "student" / "text_encoder" / "model.safetensors", "pt") as file:
        keys = set(file.keys())
    assert "text_model.embeddings.token_embedding.weight" in keys
    assert "text_projection.weight" not in keys
    assert all(key.startswith("text_model.") for key in keys)


def test_encoder_and_tokenizer_serve_a_stable_diffusion_pipeline(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student")
    torch.manual_seed(0)
    autoencoder: Any = AutoencoderKL
    unet: Any = UNet2DConditionModel
    scheduler: Any = DDIMScheduler
    pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=autoencoder(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16),
        text_encoder=CLIPTextModel.from_pretrained(tmp_path / "student" / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(tmp_path / "student" / "tokenizer"),
        unet=unet(
            sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=24,
            attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(PROMPT, num_inference_steps=1, height=16, width=16, output_type="np").images
    assert picture.shape == (1, 16, 16, 3)
    # The pipeline's own states are the student's on all 77 slots: padding and pooling went the same way.
    states = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    ids = tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(states, model.text_model(ids).last_hidden_state)


def test_a_second_export_replaces_the_first_and_leaves_nothing_else(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    export(model, tokenizer, out)
    with torch.no_grad():
        model.text_projection.weight.add_(1)
    export(model, tokenizer, out)
    loaded = CLIPTextModelWithProjection.from_pretrained(out)
    assert torch.equal(loaded.text_projection.weight, model.text_projection.weight)
    assert names_in(tmp_path) == ["student"]


def test_weights_that_came_back_different_are_not_an_export(
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoiled(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        tensors["text_model.final_layer_norm.bias"][0] += 1e-6
        save_file(tensors, path, metadata)

    monkeypatch.setattr("distill.export.folder.save_file", spoiled)
    with pytest.raises(RuntimeError, match=r"final_layer_norm\.bias differs"):
        export(model, tokenizer, tmp_path / "student")
    assert names_in(tmp_path) == []


def test_a_tokenizer_that_came_back_different_is_not_an_export(
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoiled(own: PreTrainedTokenizerFast, folder: Path, slots: int) -> None:
        write_tokenizer(own, folder, slots)
        merges = folder / "merges.txt"
        merges.write_text("".join(merges.read_text().splitlines(keepends=True)[:-1]))

    monkeypatch.setattr("distill.export.folder.write_tokenizer", spoiled)
    with pytest.raises(RuntimeError, match=r"vocab.json and merges.txt differs"):
        export(model, tokenizer, tmp_path / "student")
    assert names_in(tmp_path) == []


def test_a_tokenizer_that_would_not_cut_chinese_is_not_an_export(
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CLIPTokenizer makes its rules from code: named in the config, it would break the English of mixed prompts."""
    monkeypatch.setattr("distill.export.folder.FAST_TOKENIZER_CLASS", "CLIPTokenizer")
    with pytest.raises(RuntimeError, match=r"the tokenizer in .*student.* differs"):
        export(model, tokenizer, tmp_path / "student")


def test_every_release_knows_the_tokenizers_class(student: Path) -> None:
    """transformers 4 has no TokenizersBackend, as transformers 5 calls the same."""
    for place in (student, student / "tokenizer"):
        told = json.loads((place / "tokenizer_config.json").read_text())
        assert told["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert told["model_input_names"] == ["input_ids", "attention_mask"]  # else transformers 4 adds a third


def test_a_student_that_would_load_wrongly_is_refused(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="tokenizer has 523 tokens, the model rows for 520"):
        checked_clip_config(text_half(tiny_clip(tiny_tokenizer())), tokenizer)
    with torch.no_grad():
        model.text_projection.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"text_projection\.weight holds numbers that are not finite.*--step"):
        export(model, tokenizer, tmp_path / "student")


def test_foreign_things_at_out_are_never_touched(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.jpg").write_text("mine")
    (tmp_path / "pipeline" / "text_encoder").mkdir(parents=True)
    (tmp_path / "pipeline" / "text_encoder" / "config.json").write_text("mine")
    wrong = dict.fromkeys(("file", "folder", "pipeline"), "something else is there; name a new folder")
    wrong["no/such"] = "no folder .*no; make it first"
    for out, word in wrong.items():
        with pytest.raises(UserError, match=word):
            export(model, tokenizer, tmp_path / out)
    assert (tmp_path / "folder" / "photo.jpg").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(model, tokenizer, tmp_path / "empty")


@pytest.mark.parametrize("exchange", [True, False])
def test_replace_folder(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr("data.files._exchange", lambda new, old: False)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "which").read_text() == "new"
    assert names_in(tmp_path) == ["old"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "link") as folder:
            folder.mkdir()
            (folder / name).write_text(name)
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "far") == ["b"]
    assert set(names_in(tmp_path)) == {"far", "link"}


def test_command_line(
    model: CLIPTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = []

    def open_run(run: Path, step: int | None) -> SimpleNamespace:
        opened.append((run, step))
        student = SimpleNamespace(state_width=24, to_clip=lambda: model)
        return SimpleNamespace(config=config, student=student, tokenizer=tokenizer)

    save_clip(tmp_path / "clip")
    config = RunConfig(str(tmp_path / "clip"), DataConfig(tmp_path / "corpus"), tmp_path / "run")
    monkeypatch.setattr("distill.export.main.open_run", open_run)

    with pytest.raises(UserError, match="no such folder; train first"):
        main(["--run", str(tmp_path / "absent"), "--out", str(tmp_path / "student")])
    (tmp_path / "run").mkdir()
    other = tmp_path / "xl"
    other.mkdir()
    (other / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["a", "B"]}'
    )
    common = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "student")]
    for wrong, said in (
        (["--pipeline", "a/b"], "give both or neither"),
        (["--pipeline", str(tmp_path), "--pipeline-out", str(tmp_path / "p")], "no model_index.json"),
        (
            ["--pipeline", str(other), "--pipeline-out", str(tmp_path / "p")],
            "it has no text_encoder",
        ),
        (["--results", str(tmp_path / "absent.json")], "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            main([*common, *wrong])
        assert not (tmp_path / "student").exists()
    main([*common, "--step", "7", "--parts", "golden", "comfyui", "open_clip"])
    assert opened[-1] == (tmp_path / "run", 7)
    assert len(opened) == 2, "once for the misfit, once for the export"
    assert {path.name for path in (tmp_path / "student").iterdir()} >= {"golden", "comfyui", "open_clip", "README.md"}
    assert "523 tokens, checked" in capsys.readouterr().out


def test_the_real_script_from_another_folder(tmp_path: Path) -> None:
    """scripts/ holds a distill.py too, which must not hide the package."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "export.py", "--run", "absent", "--out", "student"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: --run absent: no such folder; train first with scripts/distill.py\n"
    assert list(tmp_path.iterdir()) == []
