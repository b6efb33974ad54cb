"""The forms for Immich and open_clip; on request in the real open_clip."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import CLIPModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.api import load_student
from distill.export.folder import export
from distill.export.formats import GOLDEN_PROMPTS, write_golden
from distill.export.search import open_clip_weights, open_clip_writer, write_immich
from eval.retrieval.models import load_text_tower, text_features
from eval.retrieval.result import OPENAI
from tests.eval.tiny import save_clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "clip"
    save_clip(folder)
    return str(folder)


def test_open_clips_folder(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, teacher: str, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student", [open_clip_writer(teacher)])
    folder = tmp_path / "student" / "open_clip"
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    assert config["text_cfg"]["vocab_size"] == len(tokenizer)
    assert (config["text_cfg"]["pool_type"], config["text_cfg"]["eos_id"]) == ("eos", tokenizer.eos_token_id)
    stored = load_file(folder / "open_clip_model.safetensors")
    clip: Any = CLIPModel.from_pretrained(teacher)
    assert torch.equal(stored["token_embedding.weight"], model.text_model.embeddings.token_embedding.weight)
    attention = clip.vision_model.encoder.layers[0].self_attn
    joined = torch.cat([each.weight for each in (attention.q_proj, attention.k_proj, attention.v_proj)])
    assert torch.equal(stored["visual.transformer.resblocks.0.attn.in_proj_weight"], joined)
    sizes = [sum(weight.numel() for weight in part.parameters()) for part in (clip.vision_model, model)]
    assert sum(weight.numel() for weight in stored.values()) == sum(sizes) + clip.visual_projection.weight.numel() + 1
    assert open_clip_weights(clip, model).keys() == stored.keys()


def test_a_teacher_without_an_image_tower(student: Path) -> None:
    with pytest.raises(UserError, match=r"--parts open_clip: the teacher .* has no image tower"):
        open_clip_writer(str(student))
    with pytest.raises(UserError, match=r"--parts open_clip: no readable config\.json in teacher '/absent"):
        open_clip_writer("/absent/clip")


def features(source: Path) -> Any:  # noqa: ANN401  an array
    tower = load_text_tower(str(source), "--student", torch.float32, CPU)
    return text_features(tower, GOLDEN_PROMPTS, OPENAI).features


@pytest.mark.slow  # seconds, for the export to ONNX
def test_immichs_text_half(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student", [write_immich])
    textual = tmp_path / "student" / "immich" / "textual"
    assert {"model.onnx", "tokenizer.json", "tokenizer_config.json"} <= {path.name for path in textual.iterdir()}
    assert json.loads((textual / "tokenizer_config.json").read_text())["pad_token"] == tokenizer.pad_token
    wanted = load_student(tmp_path / "student").encode(GOLDEN_PROMPTS)
    assert np.abs(features(tmp_path / "student" / "immich") - wanted).max() < 1e-5
    # The calls of OpenClipTextualEncoder of immich_ml/models/clip/textual.py, which takes one text at a time.
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    session, words = (
        onnxruntime.InferenceSession(str(textual / "model.onnx")),
        Tokenizer.from_file(str(textual / "tokenizer.json")),
    )
    pad = json.loads((textual / "tokenizer_config.json").read_text())["pad_token"]
    words.enable_padding(length=77, pad_token=pad, pad_id=words.token_to_id(pad))
    words.enable_truncation(max_length=77)
    ids = [np.array([words.encode(text).ids], dtype=np.int32) for text in GOLDEN_PROMPTS]
    found = np.stack([session.run(None, {"text": each})[0][0] for each in ids])
    assert np.abs(found - wanted).max() < 1e-5


OPEN_CLIP = """
import sys, torch, open_clip
from safetensors.torch import load_file, save_file
folder, out, *texts = sys.argv[1:]
golden = load_file(folder + "/../golden/vectors.safetensors")["input_ids"]
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder)
model.eval()
ids = open_clip.get_tokenizer("local-dir:" + folder)(texts)
pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
with torch.inference_mode():
    save_file({"ids": ids, "text": model.encode_text(golden), "image": model.encode_image(pixels)}, out)
print(open_clip.__version__)
"""


@pytest.mark.slow
@pytest.mark.skipif("YUQIAO_OPEN_CLIP_PYTHON" not in os.environ, reason="YUQIAO_OPEN_CLIP_PYTHON has open_clip")
def test_the_real_open_clip(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, teacher: str, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "student", [write_golden, open_clip_writer(teacher)])
    folder, python = tmp_path / "student" / "open_clip", os.environ["YUQIAO_OPEN_CLIP_PYTHON"]
    done = subprocess.run(
        [python, "-c", OPEN_CLIP, folder, tmp_path / "found.safetensors", *GOLDEN_PROMPTS],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "found.safetensors")
    golden = load_file(tmp_path / "student" / "golden" / "vectors.safetensors")
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    clip: Any = CLIPModel.from_pretrained(teacher)
    with torch.inference_mode():
        image = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
    text, picture = (
        float((one - other).abs().max())
        for one, other in ((found["text"], golden["text_embeds"]), (found["image"], image))
    )
    same = (found["ids"] == golden["input_ids"]).all(dim=1)
    print(f"open_clip {done.stdout.split()[-1]}: {int(same.sum())} of 20 ids, text {text:.1e}, image {picture:.1e}")
    assert max(text, picture) < 1e-4
    # Before its tokenizer it makes full-width punctuation narrow.
    assert same.tolist() == [ftfy.fix_text(prompt) == prompt for prompt in GOLDEN_PROMPTS]


def test_the_documented_search_in_a_faiss_index(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index holds a picture whose vector is the feature of the text, and others."""
    faiss: Any = pytest.importorskip("faiss", reason="needs the extra `dev`: make install")
    wanted = load_student(student).encode(["戴帽子拿剑的猫"])
    others = np.random.default_rng(0).normal(size=(20, wanted.shape[1])).astype(np.float32)
    index = faiss.IndexFlatIP(wanted.shape[1])
    index.add(np.concatenate([others / np.linalg.norm(others, axis=1, keepdims=True), wanted]))
    faiss.write_index(index, str(tmp_path / "PICTURES.index"))
    page = (Path(__file__).parents[3] / "docs" / "use.md").read_text(encoding="utf-8")
    example = next(block for block in page.split("```python\n") if block.startswith("import faiss")).partition("```")[0]
    monkeypatch.chdir(tmp_path)
    done: dict[str, Any] = {}
    exec(example.replace("STUDENT", str(student)), done)
    assert done["rows"][0, 0] == 20
    assert done["cosines"][0, 0] == pytest.approx(1, abs=1e-5)
