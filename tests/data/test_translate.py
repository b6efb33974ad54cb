"""Pseudo-parallel rows by a tiny Marian model of random weights: order, resumption, and the mark in the corpus."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sentencepiece
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from data import translate
from data.cli import UserError
from data.translate import translate_lines, write_parts
from tests.data.corpora import PAIRS, built, rows, write_config


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian")
    text = folder / "text.txt"
    text.write_text("\n".join(side for pair in PAIRS for side in pair), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "source"), vocab_size=140, minloglevel=2
    )
    (folder / "target.spm").write_bytes((folder / "source.model").read_bytes())
    (folder / "source.model").rename(folder / "source.spm")
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "source.spm"))
    words = ["</s>", "<unk>", *(pieces.id_to_piece(n) for n in range(3, pieces.vocab_size())), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}), encoding="utf-8")
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"),
        str(folder / "target.spm"),
        str(folder / "vocab.json"),
        source_lang="en",
        target_lang="zh",
    )
    pad = len(words) - 1
    config = MarianConfig(
        vocab_size=len(words),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
    )
    MarianMTModel(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def test_order_is_that_of_the_lines_whatever_the_batches() -> None:
    lines = ["ccc", "", "a", "bb"]
    assert translate_lines(lines, lambda texts: [t.upper() for t in texts], 2) == ["CCC", "", "A", "BB"]


def test_finished_parts_are_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a\nb\nc\n", encoding="utf-8")
    asked = list[str]()

    def shout(texts: list[str]) -> list[str]:
        asked.extend(texts)
        return [t.upper() for t in texts]

    out = tmp_path / "out"
    assert write_parts(tmp_path / "lines.txt", out, "zh", shout, part=2) == 3
    (out / "part-00001.parquet").unlink()
    write_parts(tmp_path / "lines.txt", out, "zh", shout, part=2)
    assert asked == ["a", "b", "c", "c"]
    assert pq.read_table(out).to_pylist() == [{"en": s.upper(), "zh": s} for s in "abc"]


def test_the_command_and_the_mark_in_the_corpus(
    marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(pair[0] for pair in PAIRS) + "\n", encoding="utf-8")
    out = tmp_path / "made"
    arguments = [
        "translate",
        str(tmp_path / "captions.txt"),
        "--model",
        str(marian),
        "--out",
        str(out),
        "--longest",
        "12",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    translate.main()
    assert "10 rows in" in capsys.readouterr().out
    made = pq.read_table(out).to_pylist()
    assert [row["en"] for row in made] == [pair[0] for pair in PAIRS]
    assert any(row["zh"] for row in made)
    pq.write_table(pq.read_table(out).set_column(1, "zh", [[pair[1] for pair in PAIRS]]), tmp_path / "good.parquet")
    source = {"name": "captions", "format": "parquet", "files": ["good.parquet"], "machine": "tiny"}
    assert built(write_config(tmp_path, [source], valid_per_domain=0))["sources"][0]["machine"] == "tiny"
    assert {row["source"] for row in rows(tmp_path / "corpus")} == {"machine:captions"}
    assert "captions (one side made by tiny)" in (tmp_path / "corpus" / "DATA_CARD.md").read_text(encoding="utf-8")


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a translation model"):
        translate.load_translator(str(tmp_path), "cpu", 8)
