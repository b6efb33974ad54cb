"""Preparing a run on another machine: the trainer finds tokenizer and token store, and trains the same weights."""

from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data.cli import UserError
from data.loader import tokenise
from distill import prepare
from distill.student.chinese_bpe import VocabularyConfig, chinese_texts, training_rows
from distill.student.extended import ExtendedConfig
from distill.text_tower import load_pretrained
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _train, _weights


def test_the_trainer_finds_what_was_prepared(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "whole")), monkeypatch)
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    prepare.main([*arguments, "--train.precision", "auto", "--processes", "1"])
    assert "next: python scripts/distill.py --config" in capsys.readouterr().out
    assert "precision: auto" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    assert not (tmp_path / "run" / "checkpoints").exists()
    monkeypatch.setattr(tokenise, "_encode", None)  # would fail if anything were tokenised again
    monkeypatch.setattr(ExtendedConfig, "make_tokenizer", None)
    _train(arguments, monkeypatch)
    one, other = (_weights(tmp_path / name, 6) for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_processes_are_a_number(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    for wrong in (["--processes", "many"], ["--processes=0"], ["--processes"]):
        with pytest.raises(UserError, match=r"--processes .*: give a number of processes from 1 on"):
            prepare.main([*arguments, *wrong])


def test_the_tokenizer_learns_from_a_sample(corpus: Path) -> None:
    rows, everything = training_rows(corpus), pc.scalar(True)
    whole = list(chinese_texts(rows, everything, 2.0))
    sample = list(chinese_texts(rows, everything, 0.5))
    assert len(whole) == rows.count_rows() == 94
    assert 30 < len(sample) < 64
    assert sample == list(chinese_texts(rows, everything, 0.5))
    assert set(sample) < set(whole)


@pytest.fixture(scope="module")
def both(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    pretrained, folder = load_pretrained(str(teacher)), tmp_path_factory.mktemp("tokenizer") / "t"
    kind = ExtendedConfig(VocabularyConfig(12, 1))
    kind.build_tokenizer(pretrained, corpus, folder)
    return pretrained.tokenizer.backend_tokenizer, kind.load_tokenizer(folder, "t").backend_tokenizer


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="ascii"), max_size=40))
def test_ascii_has_the_teachers_ids(both: tuple[Tokenizer, Tokenizer], text: str) -> None:
    """So that a store need not tokenise it twice."""
    teacher, student = both
    assert student.encode(text).ids == teacher.encode(text).ids
