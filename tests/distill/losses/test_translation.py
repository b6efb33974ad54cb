"""The auxiliary decoder against plain computations, and that it learns to say what the states hold."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from distill import loading
from distill.losses.translation import Decoder, DecoderConfig
from distill.student.chinese_bpe import VocabularyConfig, spell
from distill.student.extended import ExtendedConfig, ExtendedStudent
from distill.text_tower import EncoderOutput, load_pretrained
from distill.train import checkpoint, main
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, write_config

KIND = ExtendedConfig(VocabularyConfig(12, 1))
CHINESE = ["草地上的一只红色的猫", "红色，蓝色,狗", "大海"]


@pytest.fixture
def tokens(teacher: Path, corpus: Path, tmp_path: Path) -> Path:
    KIND.build_tokenizer(load_pretrained(str(teacher)), corpus, tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def student(teacher: Path, tokens: Path) -> ExtendedStudent:
    words = loading.load_clip_tokenizer(str(tokens), "t")
    made = KIND.build(load_pretrained(str(teacher)), words, {}, on_cpu=True)
    with torch.no_grad():
        made.embedding.new.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    return made


@pytest.fixture
def ids(tokens: Path) -> torch.Tensor:
    words = loading.load_clip_tokenizer(str(tokens), "t")
    found: torch.Tensor = words(CHINESE, padding=True, return_tensors="pt")["input_ids"]
    return found


def _decoder(student: ExtendedStudent) -> Decoder:
    torch.manual_seed(4)
    return Decoder(DecoderConfig(layers=1, heads=2), 32, student.state_width, student.vocabulary.max_length)


END = 521  # the tiny teacher's end-of-text


def test_the_loss_is_the_mean_over_asked_tokens(student: ExtendedStudent, tokens: Path) -> None:
    """Row by row with no padding at all, and the logits written out."""
    decoder, words = _decoder(student), loading.load_clip_tokenizer(str(tokens), "t")
    ids = words([*CHINESE, "cat 猫"], padding=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = student(ids)
        got = decoder(student, states, ids, "zh")
        losses, places, unsaid = 0.0, 0, 0
        for row in range(len(ids)):
            length = int((ids[row] == END).nonzero()[0, 0]) + 1
            own = ids[row : row + 1, :length]
            alone = EncoderOutput(
                states.hidden_states[row : row + 1, :length], states.pooled[:1], states.text_mask[:1, :length] | True
            )
            hidden = decoder._run(student, alone, own[:, :-1], "zh")
            rows = student.output_rows("zh")
            logits, targets = (decoder.say(hidden) @ rows.table.T)[0], rows.of_id[own[0, 1:]]
            losses += F.cross_entropy(logits[targets >= 0], targets[targets >= 0], reduction="sum").item()
            places += int((targets >= 0).sum())
            unsaid += int((targets < 0).sum())
    assert got.item() == pytest.approx(losses / places, rel=1e-5)
    assert unsaid == 1, "cat is read, not said"


def test_a_language_has_its_own_rows(student: ExtendedStudent, tokens: Path) -> None:
    """Chinese: new rows, the punctuation that they share with the teacher, and the end; English: the teacher's."""
    vocab, table = loading.load_clip_tokenizer(str(tokens), "t").get_vocab(), student.output_table()
    chinese, english = student.output_rows("zh"), student.output_rows("en")
    wide, narrow, cat, at_end = vocab[spell("，")], vocab[","], vocab[spell("猫")], vocab[spell("猫") + "</w>"]
    assert chinese.table.equal(table[chinese.ids])
    assert english.table.equal(table[english.ids])
    assert len(english.ids) == END + 1
    assert len(set(chinese.ids.tolist())) == len(chinese.ids) < len(vocab) - len(english.ids), "shared rows once"
    said = {token: int(chinese.ids[chinese.of_id[token]]) for token in (wide, narrow, cat, at_end, END)}
    assert said == {wide: wide, narrow: wide, cat: cat, at_end: cat, END: END}
    assert english.of_id[[wide, narrow, cat, vocab["cat</w>"]]].tolist() == [narrow, narrow, -1, vocab["cat</w>"]]
    assert chinese.of_id[vocab["cat</w>"]] == -1


def test_chunks_give_the_same(student: ExtendedStudent, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for chunk in (1000, 2):
        monkeypatch.setattr("distill.losses.translation._CHUNK", chunk)
        student.zero_grad()
        loss = _decoder(student)(student, student(ids), ids, "zh")
        loss.backward()
        assert student.embedding.new.grad is not None
        results.append((loss.detach(), student.embedding.new.grad.clone()))
    torch.testing.assert_close(*results)


def test_gradients_reach_states_and_shared_rows(student: ExtendedStudent, ids: torch.Tensor) -> None:
    decoder = _decoder(student)
    decoder(student, student(ids), ids, "zh").backward()
    assert student.embedding.new.grad is not None
    assert student.embedding.teacher.grad is None, "frozen"
    final = student.text.text_model.final_layer_norm.weight.grad
    assert final is not None
    assert final.abs().sum() > 0
    unused = [name for name, weight in decoder.named_parameters() if weight.grad is None]
    assert unused == [], "DDP waits for every weight"


def test_it_learns_to_say_it(student: ExtendedStudent, ids: torch.Tensor) -> None:
    """After some steps on three sentences, greedy generation gives them back, each from its own states."""
    decoder = _decoder(student)
    optimizer = torch.optim.AdamW([*decoder.parameters(), student.embedding.new], lr=3e-3, weight_decay=0)
    with torch.no_grad():
        states = student(ids)
    for _ in range(120):
        optimizer.zero_grad()
        decoder(student, states, ids, "zh").backward()
        optimizer.step()
    said = decoder.generate(student, states, int(ids[0, 0]), "zh", max_tokens=40)
    width = ids.shape[1] - 1
    assert said.shape == (3, width), "it stops when every sentence has ended"
    rows = student.output_rows("zh")
    expected = rows.ids[rows.of_id[ids[:, 1:]]]  # of tokens that share a row the first
    assert said.tolist() == expected.tolist()
    turned = EncoderOutput(states.hidden_states.flip(0), states.pooled, states.text_mask.flip(0))
    other = decoder.generate(student, turned, int(ids[0, 0]), "zh", max_tokens=40)
    assert other.tolist() == expected.flip(0).tolist()
    assert decoder.generate(student, states, int(ids[0, 0]), "zh", max_tokens=2).shape == (3, 2)


def _step(folder: Path, tokens: Path, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    words = loading.load_clip_tokenizer(str(tokens), "t")
    texts = [*CHINESE, "猫"]
    ids: torch.Tensor = words(texts, padding=True, return_tensors="pt")["input_ids"]
    student = KIND.build(load_pretrained(str(folder)), words, {}, on_cpu=True)
    decoder = _decoder(student)
    loss = decoder(student, student(ids[rows]), ids[rows], "zh")
    loss.backward()
    assert student.embedding.new.grad is not None
    return loss.detach(), student.embedding.new.grad


def test_two_processes_are_one(teacher: Path, tokens: Path, tmp_path: Path) -> None:
    loss, gradient = _step(teacher, tokens, slice(0, 4))
    parts = two_processes(lambda rank: _step(teacher, tokens, slice(2 * rank, 2 * rank + 2)), tmp_path)
    losses, gradients = zip(*parts, strict=True)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), gradient)


def test_a_run_with_a_decoder_resumes_and_exports_without(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["losses"] = {"translation": {"en_from_zh": 0.1, "decoder": {"layers": 1, "heads": 2}}}
    monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", tree)])
    tree["train"] |= {"steps": 4, "save_every": 2, "eval_every": 4}
    write_config(tmp_path / "c.yaml", tree)
    main.main()
    last = tmp_path / "run" / "checkpoints" / "step-00000004"
    stored = checkpoint._load_file(last / "weights.safetensors")
    assert "decoder.body.layers.0.fc1.weight" in stored
    moved = [name for name in stored if name.startswith("decoder.")]
    earlier = checkpoint._load_file(last.with_name("step-00000002") / "weights.safetensors")
    # The key biases of attention have no gradient: softmax does not see them.
    assert [n for n in moved if stored[n].equal(earlier[n]) and "k_proj.bias" not in n] == []
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    main.main()
    again = checkpoint._load_file(last / "weights.safetensors")
    assert all(again[name].equal(stored[name]) for name in stored)
    logged = [line for line in map(json.loads, lines) if "loss" in line]
    terms = {"translation_zh_from_zh", "translation_zh_from_en", "translation_en_from_zh"}
    assert terms < logged[0].keys()
    assert "translation_en_from_en" not in logged[0]
    assert not any(
        "decoder" in name for name in checkpoint.open_run(tmp_path / "run", None).student.to_clip().state_dict()
    )
