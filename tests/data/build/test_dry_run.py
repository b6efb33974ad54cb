"""A look at the first rows of every source before a long build, and hints at sources that may be misread."""

import re
import sys
from pathlib import Path

import pytest

from data.build import dry_run as module
from data.build.__main__ import main
from data.cli import UserError, run_cli
from tests.data.corpora import PAIRS, built, tsv_config, write_config, write_tsv


def printed(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["data.build", str(config), "--dry_run", "true"])
    run_cli(main)
    return capsys.readouterr().out


def test_rejects_rows_and_pairs_are_shown_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.jsonl").write_text('{"zh": "两个男人在骑自行车"}', encoding="utf-8")
    config = tsv_config(tmp_path, [*PAIRS, ("None", "一只狗。"), PAIRS[0], PAIRS[3]], benchmarks=["b.jsonl"],
                        valid_per_domain=0)  # fmt: skip
    before = sorted(tmp_path.iterdir())
    out = printed(config, monkeypatch, capsys)
    assert sorted(tmp_path.iterdir()) == before
    row = next(line for line in out.splitlines() if line.startswith("pairs "))
    assert row.split()[1:3] == ["13", "69.2%"]
    assert "duplicate 15.4%" in row
    assert "null 7.7%" in row
    assert "benchmark_text 7.7%" in row
    assert "pairs.tsv:11: None / 一只狗。" in out
    assert " / ".join(PAIRS[0]) in out


def test_the_rows_of_a_long_file_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{en[:-1]}, number {n} of them.", f"{zh[:-1]}第{n}号。") for n in range(4000) for en, zh in PAIRS]
    config = tsv_config(tmp_path, rows)
    monkeypatch.setattr(module, "NUM_ROWS", 1000)
    monkeypatch.setattr(module, "READ_SECONDS", 0)
    monkeypatch.setattr("data.sources.io.BLOCK_BYTES", 1 << 16)
    match = re.search(r"^pairs +about ([\d,]+) ", printed(config, monkeypatch, capsys), re.MULTILINE)
    assert match
    assert int(match[1].replace(",", "")) == pytest.approx(40_000, rel=0.25)


def test_swapped_columns_are_an_error_before_the_other_sources(tmp_path: Path) -> None:
    config = tsv_config(tmp_path, [(zh, f"{en} {n}") for n in range(3) for en, zh in PAIRS])
    with pytest.raises(UserError, match=r"source pairs: 100% of its rows have no English as en .*are they swapped\?"):
        built(config)


def test_a_source_of_another_language_is_hinted_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tsv(tmp_path / "ja.tsv", [(f"A dog {n} runs.", "これはとてもかわいいいぬです。") for n in range(30)])
    write_tsv(tmp_path / "zh.tsv", PAIRS)
    sources = [{"name": name, "format": "tsv", "files": [f"{name}.tsv"]} for name in ("ja", "zh")]
    built(write_config(tmp_path, sources))
    warning = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert warning == ["warning: ja: 100% of its rows are rejected as zh_script: is its `zh` Chinese?"]
