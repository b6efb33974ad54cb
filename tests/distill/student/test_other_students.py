"""The multilingual and the xlmr student: first weights, runs, resume, export, and what they cannot give."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertTokenizer, CLIPTextModelWithProjection, XLMRobertaConfig
from transformers import XLMRobertaModel as Encoder

from data import vocab
from data.cli import UserError
from distill import loading, text_tower
from distill.export.folder import export
from distill.export.main import main as export_main
from distill.student.base import ClipStudent
from distill.student.multilingual import MultilingualConfig, teacher_layer_indices
from distill.student.tokenizer import load_fast_tokenizer, token_texts
from distill.student.xlmr import XlmrConfig, XlmrStudent
from distill.text_tower import load_pretrained
from distill.train import main
from distill.train.checkpoint import open_run
from distill.train.config import parse_config
from distill.train.setup import validate_losses
from tests.distill.tiny_clip import run_options, write_config

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "cat",
    "red",
    "##s",
    "on",
    "the",
    "grass",
    "猫",
    "红",
    "色",
    "的",
    "只",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WordPiece tokenizer as mBERT's."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    kind: Any = BertTokenizer
    kind(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def spm(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spm") / "vocab"
    vocab.main(["--corpus", str(corpus), "--out", str(folder), "--size", "330"])
    return folder


@pytest.fixture(scope="module")
def xlmr(spm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLM-R of width 24 with random weights."""
    folder = tmp_path_factory.mktemp("xlmr")
    torch.manual_seed(1)
    shape = XLMRobertaConfig(
        vocab_size=330, hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=90, pad_token_id=2, bos_token_id=1, eos_token_id=3, type_vocab_size=1,
    )  # fmt: skip
    Encoder(shape).save_pretrained(folder)
    AutoTokenizer.from_pretrained(spm).save_pretrained(folder)
    return folder


def _multilingual(teacher: Path, words: Path, **settings: Any) -> ClipStudent:  # noqa: ANN401
    config = MultilingualConfig(str(words), **settings)
    return config.build(load_pretrained(str(teacher)), load_fast_tokenizer(str(words), "k"), {}, on_cpu=True)


def test_layers_are_taken_evenly() -> None:
    assert teacher_layer_indices(12, 12) == list(range(12))
    assert teacher_layer_indices(12, 4) == [0, 4, 7, 11]
    assert teacher_layer_indices(12, 1) == [11]
    assert teacher_layer_indices(2, 3) == [0, 0, 1]


def test_wordpiece_starts_from_the_teacher(teacher: Path, bert: Path) -> None:
    """All weights but the embedding are the teacher's; rows are those of the same text."""
    student = _multilingual(teacher, bert)
    original = text_tower.load_tower(str(teacher), "t")
    theirs = original.state_dict()
    for name, weight in student.text.state_dict().items():
        if "token_embedding" not in name:
            assert weight.equal(theirs[name]), name
    vocab_of = loading.load_clip_tokenizer(str(teacher), "t").get_vocab()
    old, row = original.text_model.embeddings.token_embedding.weight, student.output_table()
    for word in ("cat", "red", "the"):
        torch.testing.assert_close(row[WORDS.index(word)], old[vocab_of[f"{word}</w>"]])
    torch.testing.assert_close(row[WORDS.index("##s")], old[vocab_of["s</w>"]])
    one = _multilingual(teacher, bert, layers=1, first_rows="random")
    assert one.text.config.num_hidden_layers == 1
    name = "text_model.encoder.layers.{}.mlp.fc1.weight"
    assert one.text.state_dict()[name.format(0)].equal(theirs[name.format(1)])
    assert not torch.allclose(one.output_table()[5], old[vocab_of["cat</w>"]])


@torch.no_grad()
def test_wordpiece_pools_at_its_separator(teacher: Path, bert: Path) -> None:
    """A sentence alone and padded in a batch; the state is that of [SEP], id 3, not of the largest id."""
    student, words = _multilingual(teacher, bert), load_fast_tokenizer(str(bert), "k")
    batch = words(["a red 猫 on grass", "cat"], padding=True, return_tensors="pt")["input_ids"]
    assert batch[1].tolist() == [2, 5, 3, 0, 0, 0, 0]
    states = student(batch)
    assert states.text_mask[1].tolist() == [True] * 3 + [False] * 4
    alone = student(batch[1:, :3])
    torch.testing.assert_close(states.pooled[1:], alone.pooled)
    end = student.text.text_projection(states.hidden_states[:, [6, 2]])
    torch.testing.assert_close(states.pooled, torch.stack([end[0, 0], end[1, 1]]))
    stock = student.to_clip()(input_ids=batch)
    torch.testing.assert_close(stock.text_embeds, states.pooled, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_xlmr_does_not_see_its_padding(teacher: Path, xlmr: Path) -> None:
    words = load_fast_tokenizer(str(xlmr), "k")
    batch = words(["a red cat on the grass", "草地"], padding=True, return_tensors="pt")["input_ids"]
    for pooling in ("first", "mean"):
        student = XlmrConfig(str(xlmr), pooling).build(load_pretrained(str(teacher)), words, {}, on_cpu=True)
        states = student(batch)
        assert states.hidden_states.shape == (2, batch.shape[1], 32)
        assert states.pooled.shape == (2, 16)
        length = int(states.text_mask[1].sum())
        alone = student(batch[1:, :length])
        torch.testing.assert_close(states.pooled[1:], alone.pooled, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(states.hidden_states[1:, :length], alone.hidden_states, atol=1e-5, rtol=1e-4)
        hidden = student.encoder(input_ids=batch[1:, :length]).last_hidden_state[0]
        wanted = hidden[0] if pooling == "first" else hidden.mean(dim=0)
        torch.testing.assert_close(alone.pooled[0], student.to_pooled(wanted), atol=1e-5, rtol=1e-4)


def test_surfaces_have_no_marks(bert: Path, spm: Path) -> None:
    found = token_texts(load_fast_tokenizer(str(bert), "k"))
    assert found[7] == "s"
    assert found[11] == "猫"
    assert not {0, 1, 2, 3} & found.keys()
    assert not any("▁" in text for text in token_texts(load_fast_tokenizer(str(spm), "k")).values())


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, teacher: Path, corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains four steps of a student with a decoder, removes the last checkpoint, and goes on."""

    def run(student: dict[str, Any]) -> Path:
        tree = run_options(teacher, corpus, tmp_path / "run")
        tree["student"] = student
        tree["losses"] = {"empty_prompt": {}, "translation": {"decoder": {"layers": 1, "heads": 2}}}
        tree["train"] |= {"steps": 4, "save_every": 2, "eval_every": 4, "full_share": 0.5}
        monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", tree)])
        main.main()
        last = tmp_path / "run" / "checkpoints" / "step-00000004"
        stored = load_file(last / "weights.safetensors")
        for path in last.iterdir():
            path.unlink()
        last.rmdir()
        main.main()
        again = load_file(last / "weights.safetensors")
        assert stored.keys() == again.keys()
        assert all(stored[name].equal(again[name]) for name in stored)
        return tmp_path / "run"

    return run


@pytest.mark.parametrize("words", ["bert", "spm"])
def test_a_multilingual_run_is_exported(
    words: str, train: Callable[..., Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = train({"multilingual": {"tokenizer": str(request.getfixturevalue(words))}})
    opened = open_run(run, None)
    export(opened.student.to_clip(), opened.tokenizer, tmp_path / "out")
    model: Any = CLIPTextModelWithProjection.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 77
    assert model.config.eos_token_id == tokenizer.eos_token_id == 3
    ids = tokenizer(["a red cat", "草地上的猫"], padding="max_length", return_tensors="pt")["input_ids"]
    assert ids.shape == (2, 77)
    with torch.no_grad():
        wanted = open_run(run, None).student.eval()(ids)
        torch.testing.assert_close(model(input_ids=ids).text_embeds, wanted.pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_an_xlmr_run_is_exported_for_sentence_transformers(
    train: Callable[..., Path], xlmr: Path, tmp_path: Path, pooling: str
) -> None:
    run = train({"xlmr": {"model": str(xlmr), "pooling": pooling}})
    student = open_run(run, None).student.eval()
    assert isinstance(student, XlmrStudent)
    with pytest.raises(UserError, match=r"student\.xlmr: is no CLIP text tower"):
        student.to_clip()
    given = ["--run", str(run), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"student\.xlmr: .* no pipeline, upload, or --parts but these two"):
        export_main([*given, "--parts", "onnx"])
    export_main(given)
    export_main(given)  # replaces its own
    texts = ["a red cat", "草地上的一只红色的猫"]
    words = AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        states = student(words(texts, padding=True, return_tensors="pt")["input_ids"])
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    found = loaded.encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(found, torch.nn.functional.normalize(states.pooled, dim=-1), atol=1e-5, rtol=1e-4)
    first = load_file(tmp_path / "out" / "states.safetensors")["linear.weight"]
    assert first.equal(student.to_states.weight)


def test_what_cannot_be_given_is_refused(teacher: Path, bert: Path, tmp_path: Path) -> None:
    tree = run_options(teacher, tmp_path, tmp_path / "run")
    tree["student"] = {"extended": {}, "multilingual": {"tokenizer": "x"}}
    with pytest.raises(UserError, match="student: give one kind: extended, multilingual or xlmr"):
        parse_config(write_config(tmp_path / "c.yaml", tree))
    tree["student"] = {"multilingual": {"tokenizer": "x"}}
    tree["train"]["full_share"] = 0
    run = parse_config(write_config(tmp_path / "c.yaml", tree))
    with pytest.raises(UserError, match=r"losses\.hidden: the student's English tokens are not the teacher's"):
        validate_losses(run, 32)
    tree["losses"] = {"pooled": None, "contrastive": None}
    tree["train"]["full_share"] = 0.5
    run = parse_config(write_config(tmp_path / "c.yaml", tree))
    with pytest.raises(UserError, match="losses: nothing has terms on dynamically padded steps"):
        validate_losses(run, 32)
    with pytest.raises(UserError, match=r"student\.multilingual\.tokenizer: no folder '/nowhere'"):
        MultilingualConfig("/nowhere").check()
    with pytest.raises(UserError, match=r"student\.xlmr\.model: .* holds no encoder in safetensors"):
        XlmrConfig(str(bert)).check()
    two = tmp_path / "two"
    kind: Any = BertTokenizer
    kind(vocab={w: i for i, w in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a"])}).save_pretrained(two)
    with pytest.raises(UserError, match="ends texts with id 2, which transformers reads as"):
        MultilingualConfig(str(two)).check()
    with pytest.raises(UserError, match="holds no tokenizer"):
        MultilingualConfig(str(tmp_path)).check()
