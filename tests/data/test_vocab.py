"""A trained vocabulary against SentencePiece itself."""

from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from data import vocab
from data.cli import UserError
from tests.distill.tiny_clip import write_corpus

TEXTS = ["A red cat", "草地上的一只红色的猫 ，b", "龘 naïve  ﬁ ☕ 1+1", "", "  ", "a photo of ２ dogs\tand\u3000狗"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vocab")
    write_corpus(place / "corpus")
    vocab.main(["--corpus", str(place / "corpus"), "--out", str(place / "vocab"), "--size", "330"])
    return place


def test_it_splits_as_sentencepiece_does(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "vocab")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "vocab" / "sentencepiece.model"))
    assert len(tokenizer) == 330
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == [1, *pieces.encode(vocab.normalise_for_vocab(text)), 3]
        assert tokenizer.decode(ids, skip_special_tokens=True) == vocab.normalise_for_vocab(text)


def test_special_tokens(folder: Path) -> None:
    """Never 2 for end-of-text, and the files are those that a user expects."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "vocab")
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert tokenizer(["a cat", "a"], padding=True)["input_ids"][1][-1] == 2
    assert {path.name for path in (folder / "vocab").iterdir()} == {
        "sentencepiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_again_is_the_same(folder: Path) -> None:
    vocab.main(["--corpus", str(folder / "corpus"), "--out", str(folder / "again"), "--size", "330"])
    first, second = ((folder / name / "tokenizer.json").read_bytes() for name in ("vocab", "again"))
    assert first == second


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    corpus = ["--corpus", str(folder / "corpus")]
    with pytest.raises(UserError, match="exists already; name a new folder"):
        vocab.main([*corpus, "--out", str(folder / "vocab")])
    with pytest.raises(UserError, match=r"no folder .*; make it first"):
        vocab.main([*corpus, "--out", str(tmp_path / "a" / "b")])
    with pytest.raises(UserError, match=r"no train/\*.parquet there"):
        vocab.main(["--corpus", str(tmp_path), "--out", str(tmp_path / "v")])
    with pytest.raises(UserError, match="--size 100000: does not fit this corpus"):
        vocab.main([*corpus, "--out", str(tmp_path / "v"), "--size", "100000"])
    assert list(tmp_path.iterdir()) == []
