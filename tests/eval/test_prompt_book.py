import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import opencc
import pytest

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "eval" / "prompt_book.jsonl"
HAN, LATIN = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[A-Za-z]")
NEEDED, ALLOWED = ["id", "kind", "zh", "en"], ["id", "kind", "zh", "en", "zh_hant", "mixed", "note"]
OTHER_WORDS = {
    "moods-01": "convenience store is 便利商店 in Taiwan",
    "camera-words-09": "photographic film is 底片 in Taiwan",
    "camera-words-12": "Rembrandt is 林布蘭 in Taiwan",
}
"""Lines whose traditional form is another word, and so no character-by-character form of the simplified one."""

Row = dict[str, str]


@pytest.fixture(scope="module")
def book() -> list[Row]:
    return [json.loads(line) for line in BOOK.read_text(encoding="utf-8").splitlines()]


def test_46_kinds_of_ten_lines_or_more(book: list[Row]) -> None:
    kinds = Counter(row["kind"] for row in book)
    assert len(kinds) == 46
    assert {kind: lines for kind, lines in kinds.items() if lines < 10} == {}


def test_the_page_names_every_kind(book: list[Row]) -> None:
    page = (ROOT / "docs" / "prompt-book.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("## Kinds")[1].splitlines() if line.startswith("| `")]
    named = [kind for line in rows for kind in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])]
    assert sorted(named) == sorted({row["kind"] for row in book})


def test_keys_and_ids(book: list[Row]) -> None:
    numbers: Counter[str] = Counter()
    for row in book:
        numbers[row["kind"]] += 1
        assert row["id"] == f"{row['kind']}-{numbers[row['kind']]:02}"
        assert [key for key in ALLOWED if key in row] == list(row)
        assert set(NEEDED) <= set(row)
        assert all(value == value.strip() != "" for value in row.values()), row["id"]


@pytest.mark.parametrize("key", ["zh", "en", "zh_hant", "mixed"])
def test_no_text_twice(book: list[Row], key: str) -> None:
    texts = Counter(row[key].casefold() for row in book if key in row)
    assert [text for text, times in texts.items() if times > 1] == []


def test_scripts(book: list[Row]) -> None:
    for row in book:
        assert HAN.search(row["zh"]), row["id"]
        assert not HAN.search(row["en"]), row["id"]
        if "mixed" in row:
            assert row["mixed"] != row["zh"], row["id"]
            assert HAN.search(row["mixed"]), row["id"]
            assert LATIN.search(row["mixed"]), row["id"]


def test_traditional_forms_are_those_of_the_simplified_text(book: list[Row]) -> None:
    convert = opencc.OpenCC("t2s").convert

    def simple(text: str) -> str:
        return str(convert(text)).replace("著", "着")  # Taiwan writes 著 for 着, and t2s leaves it

    assert [row["id"] for row in book if row.get("zh_hant") == row["zh"]] == []
    others = {row["id"] for row in book if "zh_hant" in row and simple(row["zh_hant"]) != simple(row["zh"])}
    assert others == set(OTHER_WORDS)


def test_traditional_forms_are_no_converter_slips(book: list[Row]) -> None:
    """Characters that a phrase table picks wrongly, in the contexts where it is known to do so."""
    slips = re.compile(
        "一頭髮呆|蛇發|[頭長短紅銀金白]發(?!呆)|[兩三四五幾萬一]只|乾部|幹燥|皇後|王後|[牛湯拉泡]面(?!前)|胡同里|[屋裏]里"
    )
    assert [row["id"] for row in book if slips.search(row.get("zh_hant", ""))] == []


def test_marks_of_the_web_interfaces_agree(book: list[Row]) -> None:
    for row in book:
        for other in ("zh", "mixed", "zh_hant"):
            text = row.get(other, row["zh"])
            for mark in (r"<lora:[^>]+>", r"\bBREAK\b", r"(?<=[:：])[.\d]+(?=[)）])"):
                assert sorted(re.findall(mark, text)) == sorted(re.findall(mark, row["en"])), row["id"]
    kinds = {"weights-half": r"[(\[].*[)\]]", "weights-full": "（.*）", "lora-tags": "<lora:", "break": "BREAK"}
    for kind, mark in kinds.items():
        assert [row["id"] for row in book if row["kind"] == kind and not re.search(mark, row["zh"])] == []


def test_long_prompts_have_250_to_350_characters(book: list[Row]) -> None:
    long = [row for row in book if row["kind"] == "long-300"]
    assert [row["id"] for row in long for key in ("zh", "zh_hant", "mixed")
            if not 250 <= len(row.get(key, row["zh"])) <= 350] == []  # fmt: skip


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401  any JSON
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _texts(path: Path) -> Iterator[str]:
    """Every string of a benchmark file, whatever its layout."""
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".jsonl":
            for line in lines:
                yield from _strings(json.loads(line))
        elif path.suffix == ".json":
            yield from _strings(json.load(lines))
        elif path.suffix == ".csv":
            for row in csv.reader(lines):
                yield from row
        else:
            yield from (line.rstrip("\r\n") for line in lines)


def test_no_text_is_one_of_a_public_test_set(book: list[Row], real: Path) -> None:
    files = [path for folder in ("benchmarks", "dev") for path in sorted((real / folder).iterdir())
             if path.suffix in (".jsonl", ".json", ".csv", ".txt")]  # fmt: skip
    theirs = {text.strip().casefold() for path in files for text in _texts(path)}
    assert len(theirs) > 20_000
    ours = {row[key].casefold() for row in book for key in ("zh", "en", "zh_hant", "mixed") if key in row}
    assert ours & theirs == set()
