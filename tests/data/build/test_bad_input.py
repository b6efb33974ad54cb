"""Every mistake that a user can mend is one clear line and exit code 2; a bad row is a counted reject."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.build.__main__ import build, main
from data.cli import UserError, run_cli
from tests.data.corpora import PAIRS, built, tsv_config, write_config, write_tsv

TSV: dict[str, Any] = {"name": "pairs", "format": "tsv", "files": ["pairs.tsv"]}
REPOSITORY = Path(__file__).parents[3]


def refused(config: Path, match: str) -> None:
    with pytest.raises(UserError, match=match):
        build(config, config.parent / "corpus")
    assert not (config.parent / "corpus").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"colums": 3}, r"corpus\.yaml: sources\.0 \(pairs\): colums: no such key; there are .*name, domain"),
        ({"format": "tvs"}, r"sources\.0 \(pairs\): format 'tvs' is not one of tsv, moses"),
        ({"en": "two"}, r"sources\.0 \(pairs\): en: must be a whole number, not 'two'"),
        ({"name": 2024}, r"sources\.0 \(2024\): name: must be text, not 2024; put it in quotes"),
        ({"domain": "captions"}, r"sources\.0 \(pairs\): domain: 'captions' is none of 'caption', 'general'"),
        ({"license": " "}, "license is empty"),
        ({"spaces": "drop"}, "spaces: 'drop' is none of 'remove', 'comma', 'keep'"),
        ({"name": "../up"}, "source name '../up'"),
        ({"files": ["gone.tsv"]}, r"gone\.tsv: no such file"),
        ({"files": ["no*.tsv"]}, r"no\*\.tsv: no file there"),
        ({"format": ["tsv"]}, r"format \['tsv'\] is not one of tsv"),
        ({"files": []}, "files is empty"),
        ({"files": ["a\0.tsv"]}, "a path holds a NUL character"),
        ({"en": 9}, r"pairs\.tsv: no line has column 9 \(the widest has 2\)"),
        ({"en": 0}, "columns count from 1"),
        ({"encoding": "utf-99"}, "unknown encoding 'utf-99'"),
        ({"files": ["nowhere://x/pairs.tsv"]}, "cannot be opened"),
    ],
)
def test_mistakes_in_a_source(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    write_tsv(tmp_path / "pairs.tsv", PAIRS)
    refused(write_config(tmp_path, [{**TSV, **change}]), match)


@pytest.mark.parametrize(
    ("rest", "match"),
    [
        ({"benchmark": []}, r"corpus\.yaml: benchmark: no such key; there are sources, benchmarks"),
        ({"limits": {"min_chars": 3}}, r"corpus\.yaml: limits\.min_chars: no such key; there are min_en_chars, "),
        ({"limits": {"max_run": "a"}}, r"corpus\.yaml: limits\.max_run: must be a whole number, not 'a'"),
        ({"limits_by_domain": {"general": {"min_chars": 3}}}, r"limits_by_domain\.general\.min_chars: no such key"),
        ({"limits_by_domain": {"news": {"min_en_chars": 3}}}, r"limits_by_domain\.news: no source has this domain"),
        ({"benchmarks": ["gone.csv"]}, r"gone\.csv: no such file"),
        ({"limits": {"min_en_chars": 1000}}, r"no row is left after cleaning \(reasons: en_empty\)"),
        ({"rows_per_shard": 0}, "rows_per_shard"),
        ({"valid_per_domain": -1}, "valid_per_domain"),
    ],
)
def test_mistakes_in_the_rest(tmp_path: Path, rest: dict[str, Any], match: str) -> None:
    refused(tsv_config(tmp_path, PAIRS, **rest), match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sources: [", "not readable as YAML"),
        ("just text", "holds no keys"),
        ("sources: []", "sources is empty"),
        ("benchmarks: []", "sources: missing; write it into"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "corpus.yaml").write_text(text, encoding="utf-8")
    refused(tmp_path / "corpus.yaml", match)


def test_quoted_numbers_are_text(tmp_path: Path) -> None:
    """Keys and names that look like numbers: JSON lines with the keys "0" and "1"."""
    lines = [json.dumps({"0": en, "1": zh}) for en, zh in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = "{name: '2024', domain: general, license: '0', format: jsonl, files: [pairs.jsonl], en: '0', zh: '1'}"
    (tmp_path / "corpus.yaml").write_text(f"sources: [{options}]")
    report = built(tmp_path / "corpus.yaml")
    assert (report["sources"][0]["name"], report["rows_kept"]) == ("2024", 10)


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    write_tsv(tmp_path / "pairs.tsv", PAIRS)
    refused(write_config(tmp_path, [TSV, TSV]), "two sources are named 'pairs'")


def test_a_truncated_gz(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"line {n}\t第{n}行\n" for n in range(5000)).encode())
    (tmp_path / "pairs.tsv.gz").write_bytes(whole[: len(whole) // 2])
    refused(write_config(tmp_path, [{**TSV, "files": ["pairs.tsv.gz"]}]), r"pairs\.tsv\.gz: the file is cut short")


def test_a_gz_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv.gz").write_bytes(b"plain text\n")
    refused(write_config(tmp_path, [{**TSV, "files": ["pairs.tsv.gz"]}]), r"pairs\.tsv\.gz: the file is cut short or")


def test_an_empty_file(tmp_path: Path) -> None:
    refused(tsv_config(tmp_path, []), r"no rows in pairs\.tsv")


def test_invalid_utf8_is_a_counted_reject_with_its_line(tmp_path: Path) -> None:
    config = tsv_config(tmp_path, PAIRS)
    with (tmp_path / "pairs.tsv").open("ab") as file:
        file.write(b"bad \xff byte\t\xd6\xd0\n")
        file.write("A good last line.\t最后一行是好的。\n".encode())
    told = built(config)
    assert told["rows_kept"] == 11
    assert told["rejects"]["bad_utf8"]["worst"][0]["place"] == "pairs.tsv:11"


def test_a_benchmark_that_is_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"zh": "一"}\n{"zh": "二\n', encoding="utf-8")
    refused(tsv_config(tmp_path, PAIRS, benchmarks=["b.jsonl"]), r"b\.jsonl:2: not JSON .*is the file cut short")
    (tmp_path / "b.jsonl").write_text('{"title": "一"}\n', encoding="utf-8")
    refused(tsv_config(tmp_path, PAIRS, benchmarks=["b.jsonl"]), r"b\.jsonl:1: no captions; .* this has title")


def test_a_folder_that_is_not_a_corpus_is_left_alone(tmp_path: Path) -> None:
    config = tsv_config(tmp_path, PAIRS)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(UserError, match="exists and is not a corpus"):
        build(config, tmp_path / "corpus")
    with pytest.raises(UserError, match="exists and is not a corpus"):
        build(config, tmp_path / "corpus", overwrite=True)
    assert (tmp_path / "corpus" / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_the_command_line_says_one_line_and_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tsv_config(tmp_path, PAIRS, benchmark=[])
    for arguments in ([str(config), "--out", str(tmp_path / "c")], [str(config), "--ouut", "x"], [str(config)]):
        monkeypatch.setattr(sys, "argv", ["data.build", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_cli(main)
        assert stop.value.code == 2
        told = capsys.readouterr().err.strip().split("\n")
        assert len(told) == 1
        assert told[0].startswith("error: ")


def test_a_terminal_without_chinese_gets_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["data.build", str(tsv_config(tmp_path, PAIRS)), "--dry_run", "true"])
    run_cli(main)
    sys.stdout.flush()
    assert b"A dog runs on the grass. / \\u4e00\\u53ea\\u72d7" in printed.getvalue()


@pytest.mark.parametrize("entry", [["-m", "data.build"], ["scripts/build_corpus.py"]])
def test_both_entry_points(tmp_path: Path, entry: list[str]) -> None:
    config = tsv_config(tmp_path, PAIRS)
    ran = subprocess.run(
        [sys.executable, *entry, str(config), "--out", str(tmp_path / "c")],
        check=False, capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "rows in" in ran.stdout
    assert (tmp_path / "c" / "report.json").exists()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=12))
def test_any_bytes_in_a_tsv_are_counted_rows(tmp_path: Path, lines: list[bytes]) -> None:
    folder = Path(tmp_path, str(abs(hash(tuple(lines)))))
    folder.mkdir(exist_ok=True)
    config = tsv_config(folder, PAIRS)
    data = b"\n".join(lines)
    with (folder / "pairs.tsv").open("ab") as file:
        file.write(data)
    told = built(config, overwrite=(folder / "corpus").exists())
    tail = data.count(b"\n") + (0 if data.endswith(b"\n") or not data else 1)
    assert told["rows_in"] == len(PAIRS) + tail == told["rows_kept"] + told["rows_rejected"]
