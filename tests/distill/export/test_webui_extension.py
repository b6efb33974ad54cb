"""The extension for WebUI and Forge, against STUBS of their classes; on request against Forge's real text engine."""

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.export.folder import export
from distill.export.formats import write_golden, write_webui_extension
from distill.export.webui_extension import TokenSet
from tests.distill.tiny_xl import FIRST, SECOND

EXTENSION = Path("webui") / "yuqiao" / "scripts" / "yuqiao.py"


@pytest.fixture
def student(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    export(model, tokenizer, tmp_path / "student", [write_golden, write_webui_extension])
    return tmp_path / "student"


class Encoder(torch.nn.Module):
    """Stands for CLIPTextModel of transformers 4, which has `text_model`."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.config, self.dtype, self.device = config, torch.float32, torch.device("cpu")
        self.text_model = CLIPTextModelWithProjection(config).text_model


@pytest.fixture
def shipped(student: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  the module, loaded as WebUI does
    """With the parts of the programs that it imports, and the callbacks that it registered."""
    registered: dict[str, Any] = {}
    options = SimpleNamespace(add_option=lambda name, info: registered.setdefault("options", []).append(name))
    contents: dict[str, dict[str, Any]] = {
        "modules": {},
        "modules.script_callbacks": {
            "on_ui_settings": lambda call: registered.update(settings=call),
            "on_model_loaded": lambda call: registered.update(loaded=call),
        },
        "modules.shared": {"opts": options, "OptionInfo": lambda *values, section: values},
        "modules.sd_hijack": {"EmbeddingsWithFixes": EmbeddingsWithFixes},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("transformers.CLIPTextModel", Encoder)
    spec = importlib.util.spec_from_file_location("yuqiao", student / EXTENSION)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(module=module, registered=registered, options=options)


class EmbeddingsWithFixes(torch.nn.Module):
    """Stands for the layer that puts in vectors of textual inversions."""

    def __init__(self, wrapped: torch.nn.Module, hijack: Any, textual_inversion_key: str = "clip_l") -> None:  # noqa: ANN401
        super().__init__()
        self.wrapped, self.hijack, self.textual_inversion_key = wrapped, hijack, textual_inversion_key


class Hijacked:
    """Stands for FrozenCLIPEmbedderWithCustomWords: an embedder and the hijack around it."""

    def __init__(self, wrapped: Any, hijack: Any) -> None:  # noqa: ANN401
        self.wrapped, self.hijack, self.comma_token, self.id_pad = wrapped, hijack, 267, 0


def checkpoint(width: int = 24) -> Any:  # noqa: ANN401
    reloaded: list[bool] = []
    database = SimpleNamespace(load_textual_inversion_embeddings=lambda force_reload: reloaded.append(force_reload))
    embedder = SimpleNamespace(
        tokenizer="old",
        transformer=SimpleNamespace(config=SimpleNamespace(hidden_size=width), device="cpu", dtype=torch.float32),
    )
    hijack = SimpleNamespace(embedding_db=database, clip=None)
    return SimpleNamespace(cond_stage_model=Hijacked(embedder, hijack), reloaded=reloaded)


def test_a_checkpoint_reads_through_the_student(
    shipped: Any,  # noqa: ANN401
    student: Path,
    model: CLIPTextModelWithProjection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped.registered["settings"]()
    assert shipped.registered["options"] == ["yuqiao_student", "yuqiao_enabled"]
    loaded = checkpoint()
    shipped.options.yuqiao_enabled, shipped.options.yuqiao_student = True, str(student)
    shipped.registered["loaded"](loaded)
    assert capsys.readouterr().out == f"Yuqiao: prompts are read by {student}\n"
    stage = loaded.cond_stage_model
    weights = stage.wrapped.transformer.text_model
    assert torch.equal(weights.final_layer_norm.weight, model.text_model.final_layer_norm.weight)
    assert torch.equal(
        weights.embeddings.token_embedding.wrapped.weight, model.text_model.embeddings.token_embedding.weight
    )
    assert loaded.reloaded == [True]
    assert stage.hijack.clip is stage
    ids = stage.wrapped.tokenizer("猫，狗,").input_ids
    assert sum(token == stage.comma_token for token in ids) == 2
    assert stage.id_pad == stage.wrapped.tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("off", ""),
        ("empty", ""),
        ("absent", "no exported student (text_encoder/ and tokenizer/)"),
        ("wide", "this checkpoint reads states of width 768, the student's have 24"),
        ("sdxl", "only checkpoints of Stable Diffusion 1.x, in reForge also XL, have a text encoder"),
        ("old", "cannot read the student's tokenizer.json; 4.45 and newer can"),
    ],
)
def test_a_checkpoint_that_keeps_its_own(
    change: str,
    said: str,
    shipped: Any,  # noqa: ANN401
    student: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = checkpoint(768 if change == "wide" else 24)
    if change == "sdxl":
        loaded = SimpleNamespace(conditioner=None)
    if change == "old":
        (student / "tokenizer" / "tokenizer.json").write_text('{"version": "9"}')
    shipped.options.yuqiao_enabled = change != "off"
    shipped.options.yuqiao_student = {"empty": " ", "absent": str(student / "nowhere")}.get(change, str(student))
    shipped.registered["loaded"](loaded)
    printed = capsys.readouterr().out
    assert printed.count("\n") == bool(said)
    assert said in printed
    if change != "sdxl":
        assert loaded.cond_stage_model.wrapped.tokenizer == "old"


@pytest.fixture
def reforge_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """reForge's layers, which stand here for torch's own."""
    for name in ("ldm_patched", "ldm_patched.modules", "ldm_patched.modules.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["ldm_patched.modules.ops"])["use_patched_ops"] = nullcontext


def test_reforge_moves_and_patches_what_its_holder_has(
    shipped: Any,  # noqa: ANN401
    student: Path,
    reforge_ops: None,
) -> None:
    loaded, holder = checkpoint(), SimpleNamespace(operations="theirs", transformer="old")
    clip = SimpleNamespace(cond_stage_model=SimpleNamespace(clip_l=holder))
    loaded.forge_objects = SimpleNamespace(clip=clip)
    shipped.module.plug_into_checkpoint(loaded, student)
    assert holder.transformer is loaded.cond_stage_model.wrapped.transformer
    assert isinstance(holder.transformer, Encoder)
    assert loaded.clip is loaded.cond_stage_model
    clip.cond_stage_model = SimpleNamespace(clip_h=holder)  # of Stable Diffusion 2.x
    with pytest.raises(ValueError, match=r"only checkpoints of Stable Diffusion 1\.x"):
        shipped.module.plug_into_checkpoint(loaded, student)


def test_both_encoders_of_reforges_sdxl(
    shipped: Any,  # noqa: ANN401
    student: Path,
    pair: Path,
    reforge_ops: None,
) -> None:
    parts = [checkpoint(width) for width in (FIRST, SECOND)]
    stages = [part.cond_stage_model for part in parts]
    holders = SimpleNamespace(**{f"clip_{x}": SimpleNamespace(operations="", transformer="old") for x in "lg"})
    loaded = SimpleNamespace(
        conditioner=SimpleNamespace(embedders=[*stages, "sizes"]), cond_stage_model="the conditioner",
        forge_objects=SimpleNamespace(clip=SimpleNamespace(cond_stage_model=holders)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="this checkpoint's text encoders are 2, the student's 1"):
        shipped.module.plug_into_checkpoint(loaded, student)
    with pytest.raises(ValueError, match="this checkpoint's text encoders are 1, the student's 2"):
        shipped.module.plug_into_checkpoint(checkpoint(), pair / "student")
    shipped.module.plug_into_checkpoint(loaded, pair / "student")
    first, second, sizes = loaded.conditioner.embedders
    assert (sizes, loaded.cond_stage_model) == ("sizes", "the conditioner")
    assert (first.id_pad, second.id_pad) == (first.id_end, second.wrapped.tokenizer.convert_tokens_to_ids("!"))
    assert holders.clip_l.transformer is first.wrapped.transformer
    assert second.wrapped.transformer.text_model.embeddings.token_embedding.textual_inversion_key == "clip_g"
    projection = load_file(pair / "student" / "text_encoder_2" / "model.safetensors")["text_projection.weight"]
    assert torch.equal(holders.clip_g.text_projection, projection.T)


def test_a_set_of_tokens_equals_each_of_them() -> None:
    assert TokenSet([3, 5]) == 3
    assert 5 == TokenSet([3, 5])  # noqa: SIM300  as the programs compare
    assert 4 != TokenSet([3, 5])  # noqa: SIM300


@pytest.mark.slow
@pytest.mark.parametrize("encoders", [1, 2])
@pytest.mark.parametrize("program", ["forge", "reforge"])
def test_the_real_text_engine(program: str, encoders: int, request: pytest.FixtureRequest) -> None:
    """YUQIAO_FORGE and YUQIAO_REFORGE name checkouts.

    YUQIAO_FORGE_PYTHON and YUQIAO_REFORGE_PYTHON are interpreters with their releases of transformers.
    """
    variable = f"YUQIAO_{program.upper()}"
    if variable not in os.environ:
        pytest.skip(f"{variable} names a checkout of {program}")
    student = request.getfixturevalue("student") if encoders == 1 else request.getfixturevalue("pair") / "student"
    python = os.environ.get(f"{variable}_PYTHON", sys.executable)
    script = Path(__file__).with_name(f"{program}_run.py")
    done = subprocess.run(
        [python, script, os.environ[variable], student / EXTENSION, student],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(program, encoders, found)
    assert found["difference"] < 1e-5
    assert found["prompts"] >= 15
    assert found["behind a comma"]
    assert found["shared"]
    assert found["patched"]
    assert found["chunks"] > 1
