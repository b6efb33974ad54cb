"""Fertility counts tokens of Han alone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from distill.student.chinese_bpe import fertility


def _corpus(folder: Path, split: str, zh: list[str]) -> None:
    (folder / split).mkdir(parents=True)
    pq.write_table(pa.table({"zh": zh, "domain": ["caption"] * len(zh)}), folder / split / "part.parquet")


@pytest.fixture
def words() -> Tokenizer:
    """红猫 is one token, every other character one of its own."""
    vocab = {token: number for number, token in enumerate(["[UNK]", "红猫", "红", "猫", "狗"])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_han_alone_counts_and_held_out_rows_come_first(tmp_path: Path, words: Tokenizer) -> None:
    _corpus(tmp_path, "train", ["狗"])
    _corpus(tmp_path, "valid", ["红猫, a red cat 8k！", "狗"])
    assert fertility(tmp_path, words) == {"caption": 2 / 3}  # 红猫 | 狗 for three characters


def test_training_rows_serve_where_nothing_is_held_out(tmp_path: Path, words: Tokenizer) -> None:
    _corpus(tmp_path, "train", ["狗猫", "cat"])
    assert fertility(tmp_path, words) == {"caption": 1.0}
