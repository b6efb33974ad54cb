"""A tiny trained student, exported, and a pipeline to put it into, for the tests of the export."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, PartialState
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.export.folder import export
from distill.export.main import main as export_main
from distill.train.config import RunConfig, parse_config
from distill.train.main import main as train_main
from tests.distill.tiny_clip import run_options, write_corpus
from tests.distill.tiny_xl import write_xl
from tests.eval.tiny import text_half, tiny_clip, tiny_student_tokenizer, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """With a Chinese token above the end-of-text, as a student has."""
    return tiny_student_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModelWithProjection:
    """Random weights, drawn anew for each test."""
    return text_half(tiny_clip(tokenizer))


@pytest.fixture
def student(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """The exported folder."""
    export(model, tokenizer, tmp_path / "student")
    return tmp_path / "student"


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """The configuration of a run whose corpus has a report, for model cards."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    config = {
        "teacher": "openai/clip-vit-large-patch14",
        "data": {"corpus": str(corpus)},
        "losses": {"pooled": {"chinese": 1.5}},
        "train": {"lr": 0.0004},
        "student": {"multilingual": {"tokenizer": str(tmp_path / "vocab")}},
        "out_dir": str(tmp_path / "run"),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    source = {"name": "tatoeba", "domain": "general", "license": "CC BY 2.0 FR", "train": 25665}
    (corpus / "report.json").write_text(json.dumps({"train_rows": 25665, "rows_rejected": 335, "sources": [source]}))
    return parse_config(["--config", str(tmp_path / "config.yaml")])


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline with the teacher's encoder, on disk."""
    torch.manual_seed(0)
    kinds: dict[str, Any] = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "scheduler": DDIMScheduler}
    pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=kinds["vae"](block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16),
        text_encoder=CLIPTextModel(text_half(tiny_clip(tiny_tokenizer(), seed=5)).config),
        tokenizer=tiny_tokenizer(),
        unet=kinds["unet"](
            sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=24,
            attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=kinds["scheduler"](),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline") / "teacher"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """xl/, a run of both encoders, its export, and the copy of the pipeline with it."""
    folder = tmp_path_factory.mktemp("pair")
    xl = write_xl(folder)
    tree = run_options(xl, write_corpus(folder / "corpus"), folder / "run")
    tree["losses"] = {"contrastive": None, "alignment": {}, "kv_metric": {}}
    tree["train"] |= {"steps": 2, "lr": 0.05}
    tree["stages"] = {"g": {}}
    (folder / "pair.yaml").write_text(yaml.safe_dump(tree))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr("sys.argv", ["distill", "--config", str(folder / "pair.yaml")])
        train_main()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    named = {"--run": "run", "--out": "student", "--pipeline": "xl", "--pipeline-out": "copy"}
    options = [word for option, name in named.items() for word in (option, str(folder / name))]
    export_main([*options, "--parts", "comfyui", "webui"])
    return folder
