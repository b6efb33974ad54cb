"""Variants of rows: what changes, what may not, and that a seed fixes all."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.augment import Augmentation, Row, augment, half_width, main, make_code_switcher, reordered, respaced
from data.cli import UserError
from tests.data.corpora import PAIRS, built, write_config, write_tsv


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_each_variant_by_hand() -> None:
    assert half_width(Row("a", "你好，世界！"), draw()).zh == "你好,世界!"
    assert {respaced(Row("a", "iPhone 15手机"), draw(s)).zh for s in range(9)} == {"iPhone 15 手机", "iPhone 15手机"}
    assert reordered(Row("two, tags", "两个，标签"), draw()) == Row("two, tags", "两个，标签")
    mixed = reordered(Row("cat, sea, moon", "猫，海，月亮"), draw(3))
    word = {"cat": "猫", "sea": "海", "moon": "月亮"}
    assert [word[t] for t in mixed.en.split(", ")] == mixed.zh.split("，")
    assert len({reordered(Row("cat, sea, moon", "猫，海，月亮"), draw(s)).en for s in range(30)}) == 6


def test_words_are_switched_only_where_the_english_side_has_them() -> None:
    switch = make_code_switcher({"草地": "grass", "奔跑": "gallop"})
    found = {switch(Row("A dog runs on the grass.", "一只狗在草地上奔跑。"), draw(s)).zh for s in range(20)}
    assert found == {"一只狗在草地上奔跑。", "一只狗在 grass 上奔跑。", "一只狗在grass上奔跑。"}


def test_a_word_is_the_longest_that_the_dictionary_knows() -> None:
    """灯 alone is switched, of 灯笼 it is no word."""
    switch = make_code_switcher({"灯": "lamp", "灯笼": "lantern"})
    found = {switch(Row("a lamp, a house", "一盏灯，灯笼，房子"), draw(s)).zh for s in range(20)}
    assert found == {"一盏灯，灯笼，房子", "一盏 lamp ，灯笼，房子", "一盏lamp，灯笼，房子"}


def test_two_english_words_never_run_together() -> None:
    switch = make_code_switcher({"红": "red", "猫": "cat"})
    found = {switch(Row("a red cat", "一只红猫"), draw(s)).zh for s in range(40)}
    assert found == {
        "一只红猫", "一只 red 猫", "一只red猫", "一只红 cat", "一只红cat", "一只 red cat", "一只red cat",
    }  # fmt: skip


def test_a_seed_fixes_the_rows_and_they_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tsv(tmp_path / "a.tsv", [(f"{en} {n}", f"{zh}{n}") for n in range(9) for en, zh in PAIRS])
    write_tsv(tmp_path / "d.tsv", [("grass", "草地"), ("bridge", "古老的桥"), ("spring", "春天")])
    sources = [{"name": "a", "format": "tsv", "files": ["a.tsv"]},
               {"name": "d", "format": "tsv", "files": ["d.tsv"], "domain": "dictionary"}]  # fmt: skip
    built(write_config(tmp_path, sources, valid_per_domain=0, limits={"near_duplicate": 2.0}))
    corpus = tmp_path / "corpus"
    everything = Augmentation(punctuation=0.2, spacing=0.2, case=0.2, tags=0, switched=0.4)
    assert augment(corpus, everything, seed=7) > 20
    first = (corpus / "train" / "augmented-00000.parquet").read_bytes()
    monkeypatch.setattr(sys, "argv", ["data.augment", str(corpus), "--seed", "7", "--punctuation", "0.2", "--spacing",
                                      "0.2", "--case", "0.2", "--tags", "0", "--switched", "0.4"])  # fmt: skip
    main()
    assert (corpus / "train" / "augmented-00000.parquet").read_bytes() == first
    made = pq.read_table(corpus / "train" / "augmented-00000.parquet").to_pylist()
    assert {row["source"] for row in made} == {"augmented:a"}
    assert all("~" in row["id"] for row in made)
    assert any("grass" in row["zh"] for row in made)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train/part-\*"):
        augment(tmp_path, Augmentation(), 0)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-00000.parquet").touch()
    with pytest.raises(UserError, match="more than 1"):
        augment(tmp_path, Augmentation(case=0.99), 0)
