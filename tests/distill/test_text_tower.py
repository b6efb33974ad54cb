"""Which states of a tower a UNet reads: SD 1.x, SD 2.x, SDXL; towers without projection; the padding token."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill import loading, text_tower
from distill.export.folder import export
from distill.student.chinese_bpe import VocabularyConfig
from distill.student.extended import ExtendedConfig
from distill.text_tower import StateLayer, load_pretrained
from distill.train.batch import Teacher
from tests.distill.tiny_clip import SLOTS, teacher_model, teacher_tokenizer

TEXTS = ["a red cat", "", "a dog on the grass!"]


def _ids(words: PreTrainedTokenizerFast) -> torch.Tensor:
    ids: torch.Tensor = words(TEXTS, padding="max_length", max_length=SLOTS, return_tensors="pt")["input_ids"]
    return ids


@torch.no_grad()
def test_the_states_of_each_layer(teacher: Path) -> None:
    """By hand: the model's own layers, one after the other; the pooled state is that of the last layer always."""
    model, ids = text_tower.load_tower(str(teacher), "t"), _ids(teacher_tokenizer())
    hidden = model(input_ids=ids, output_hidden_states=True)
    short = CLIPTextModel(type(model.config).from_dict({**model.config.to_dict(), "num_hidden_layers": 1}))
    short.load_state_dict({k.removeprefix("text_model."): v for k, v in model.state_dict().items()
                           if ".layers.1." not in k and "projection" not in k})  # fmt: skip
    normed = short(input_ids=ids).last_hidden_state
    found = {layer: text_tower.encode_ids(model, ids, layer) for layer in ("last", "penultimate", "penultimate_normed")}
    torch.testing.assert_close(found["last"].hidden_states, hidden.last_hidden_state)
    torch.testing.assert_close(found["penultimate_normed"].hidden_states, normed)
    torch.testing.assert_close(model.text_model.final_layer_norm(found["penultimate"].hidden_states), normed)
    assert not torch.allclose(found["penultimate"].hidden_states, normed)
    assert all(torch.equal(states.pooled, hidden.text_embeds) for states in found.values())


@torch.no_grad()
@pytest.mark.parametrize("layer", ["last", "penultimate", "penultimate_normed"])
def test_a_student_starts_as_its_teacher_and_is_exported_for_its_pipeline(
    layer: StateLayer, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """Padded with "!", as SD 2 and SDXL's second encoder are; the pipeline's way of reading text_encoder/."""
    pretrained = load_pretrained(str(teacher), layer, padding="!")
    config = ExtendedConfig(VocabularyConfig(12, 1))
    config.build_tokenizer(pretrained, corpus, tmp_path / "tokenizer")
    words = loading.load_clip_tokenizer(str(tmp_path / "tokenizer"), "t")
    ids = _ids(pretrained.tokenizer)
    assert torch.equal(_ids(words), ids)
    assert ids[1, 2:].eq(words.get_vocab()["!"]).all()
    student = config.build(pretrained, words, {}, on_cpu=True)
    target = Teacher(pretrained, torch.device("cpu"))(ids)
    ours = student(ids)
    assert torch.equal(ours.hidden_states, target.hidden_states)
    assert torch.equal(ours.pooled, target.pooled)
    export(student.to_clip(), words, tmp_path / "out", state_layer=layer)
    encoder = CLIPTextModel.from_pretrained(tmp_path / "out" / "text_encoder")
    out = encoder(input_ids=ids, output_hidden_states=True)
    read = out.hidden_states[-2] if layer == "penultimate" else out.last_hidden_state
    torch.testing.assert_close(read, ours.hidden_states, atol=1e-5, rtol=1e-4)
    assert encoder.config.num_hidden_layers == (1 if layer == "penultimate_normed" else 2)


@torch.no_grad()
def test_a_tower_without_projection_pools_the_state_itself(tmp_path: Path) -> None:
    """As the text encoders of Stable Diffusion pipelines are; what is made up is not trained."""
    teacher_tokenizer().save_pretrained(tmp_path)
    whole = teacher_model(522)
    whole.text_model.save_pretrained(tmp_path)
    model, ids = text_tower.load_tower(str(tmp_path), "t"), _ids(teacher_tokenizer())
    assert not model.text_projection.weight.requires_grad
    states = text_tower.encode_ids(model, ids)
    assert states.pooled.shape == (3, 32)
    for row, length in enumerate(states.text_mask.sum(dim=1).tolist()):
        torch.testing.assert_close(states.pooled[row], states.hidden_states[row, length - 1])
    torch.testing.assert_close(states.hidden_states, whole(input_ids=ids).last_hidden_state)


def test_a_padding_that_is_no_token(teacher: Path) -> None:
    with pytest.raises(UserError, match=r"padding: 'nil' is no token"):
        load_pretrained(str(teacher), padding="nil")


def _open_clip(folder: Path, model: CLIPTextModelWithProjection) -> list[str]:
    """A whole CLIP model whose text config leaves `projection_dim` at its default."""
    model.save_pretrained(folder)
    text = {**model.config.to_dict(), "projection_dim": 512}
    config = {"model_type": "clip", "projection_dim": 16, "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    teacher_tokenizer().save_pretrained(folder)
    return [str(folder)]


def _half(folder: Path, model: CLIPTextModelWithProjection) -> list[str]:
    model.half().save_pretrained(folder, variant="fp16")  # type: ignore[no-untyped-call]
    assert (folder / "model.fp16.safetensors").is_file()
    teacher_tokenizer().save_pretrained(folder)
    return [str(folder)]


def _sharded(folder: Path, model: CLIPTextModelWithProjection) -> list[str]:
    model.save_pretrained(folder, max_shard_size="30KB")
    assert (folder / "model.safetensors.index.json").is_file()
    teacher_tokenizer().save_pretrained(folder)
    return [str(folder)]


def _pipeline(folder: Path, model: CLIPTextModelWithProjection) -> list[str]:
    """By the pipeline's folder and by either encoder's; one of them in half precision alone."""
    (folder / "model_index.json").parent.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text("{}")
    for number in ("", "_2"):
        model.save_pretrained(folder / f"text_encoder{number}", variant="fp16" if number else None)
        teacher_tokenizer().save_pretrained(folder / f"tokenizer{number}")
    return [str(folder), str(folder / "text_encoder"), str(folder / "text_encoder_2")]


@torch.no_grad()
@pytest.mark.parametrize("layout", [_open_clip, _half, _sharded, _pipeline])
def test_teachers_as_the_hub_has_them(
    layout: Callable[[Path, CLIPTextModelWithProjection], list[str]], tmp_path: Path
) -> None:
    ids = _ids(teacher_tokenizer())
    wanted = text_tower.encode_ids(teacher_model(522), ids)
    exact = layout is not _half
    for name in layout(tmp_path / "model", teacher_model(522)):
        found = load_pretrained(name)
        assert found.model.dtype == torch.float32
        ours = text_tower.encode_ids(found.model, _ids(found.tokenizer))
        torch.testing.assert_close(ours.pooled, wanted.pooled, atol=1e-6 if exact else 0.05, rtol=1e-4)


def test_a_pipeline_of_the_hub_is_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache of a machine without a network: by its id, and by the id with the folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "hub" / "models--org--pipe" / "snapshots" / "1234"
    snapshot.mkdir(parents=True)
    _pipeline(snapshot, teacher_model(522))
    (tmp_path / "hub" / "models--org--pipe" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--pipe" / "refs" / "main").write_text("1234")
    for name in ("org/pipe", "org/pipe/text_encoder", "org/pipe/text_encoder_2"):
        assert text_tower.load_pretrained(name).width == 32


@pytest.mark.parametrize("layer", ["last", "penultimate", "penultimate_normed"])
def test_a_compiled_tower_is_one_graph(layer: StateLayer) -> None:
    """No graph break, so that a GPU gets one kernel sequence; with the attention of a GPU."""
    model = text_tower.optimize_for_device(teacher_model(522), on_cpu=False).train()
    ids = torch.randint(0, 521, (4, 9))
    torch._dynamo.reset()
    found = torch._dynamo.explain(lambda ids: text_tower.encode_ids(model, ids, layer).hidden_states)(ids)
    assert (found.graph_count, found.graph_break_count) == (1, 0)
