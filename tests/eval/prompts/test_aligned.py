"""Layouts in which aligned prompts are published, each with the same two prompts, and what is no such file."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from data.clean.benchmarks import load_benchmark
from data.cli import UserError
from eval.prompts.aligned import read_aligned_prompts

ROOT = Path(__file__).parents[3]
ZH, EN = ["一只猫", "山上的船，月亮"], ["a cat", "a boat on a mountain, the moon"]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def one_ig(key: str, texts: list[str]) -> list[dict[str, Any]]:
    """Ids start anew in every category; English stands in another order."""
    return [
        {"category": c, "id": "000", key: t, "type": "T"} for c, t in zip(("Portrait", "Anime"), texts, strict=True)
    ]


def long_text(texts: list[str]) -> list[dict[str, Any]]:
    return [{"prompt_id": n, "category": "sign", "prompt": t, "text": ["x"]} for n, t in enumerate(texts)]


LAYOUTS = {
    "aligned": ({"a.jsonl": lines([{"en": e, "zh": z, "tags": ["t"]} for e, z in zip(EN, ZH, strict=True)])}, None),
    "UniGenBench": (
        {"u.jsonl": lines([{"id": "s", "en": e, "zh": z, "length": "short"} for e, z in zip(EN, ZH, strict=True)])},
        None,
    ),
    "XTD10": ({"x.zh.txt": "\n".join(ZH) + "\n", "x.en.txt": "\n".join(EN)}, None),
    "two texts": ({"chinese.txt": "\ufeff" + "\r\n".join(ZH) + "\r\n", "english.txt": "\n".join(EN)}, "english.txt"),
    "OneIG-Bench": (
        {"ZH.csv": table(one_ig("prompt_cn", ZH)), "EN.csv": table(one_ig("prompt_en", EN)[::-1])},
        "EN.csv",
    ),
    "LongText-Bench": ({"t_zh.jsonl": lines(long_text(ZH)), "t.jsonl": lines(long_text(EN)[::-1])}, "t.jsonl"),
    "one table": ({"p.csv": table([{"zh": z, "en": e, "kind": "k"} for e, z in zip(EN, ZH, strict=True)])}, None),
}
GROUPS = {"aligned": ("tags", "t"), "UniGenBench": ("length", "short"), "LongText-Bench": ("category", "sign")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    files, english = LAYOUTS[layout]
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    prompts = read_aligned_prompts(tmp_path / next(iter(files)), tmp_path / english if english else None)
    assert [(prompt.zh, prompt.en) for prompt in prompts] == list(zip(ZH, EN, strict=True))
    if layout in GROUPS:
        assert prompts[0].groups == (GROUPS[layout],)
    kept_out = {text for name in files for text in load_benchmark(str(tmp_path), name).texts}
    assert kept_out >= {*ZH, *EN}  # what is scored, the cleaning of a corpus removes


def test_a_line_without_a_counterpart_is_left_out(tmp_path: Path) -> None:
    """OneIG's Chinese has a category of its own."""
    rows = [*one_ig("prompt_cn", ZH), {"category": "Multilingualism", "id": "000", "prompt_cn": "多语", "type": "T"}]
    (tmp_path / "zh.csv").write_text(table(rows), encoding="utf-8")
    (tmp_path / "en.csv").write_text(table(one_ig("prompt_en", EN)), encoding="utf-8")
    assert [prompt.zh for prompt in read_aligned_prompts(tmp_path / "zh.csv", tmp_path / "en.csv")] == ZH


def test_the_prompt_book() -> None:
    prompts = read_aligned_prompts(ROOT / "eval" / "prompt_book.jsonl", None)
    assert len({value for prompt in prompts for key, value in prompt.groups if key == "kind"}) == 46
    tagged = next(prompt for prompt in prompts if "mixed" in prompt.forms and "zh_hant" in prompt.forms)
    assert tagged.forms["mixed"] != tagged.zh != tagged.forms["zh_hant"]


def test_the_published_files(real: Path) -> None:
    folder = real / "benchmarks"
    assert len(read_aligned_prompts(folder / "prompts_unigenbench.jsonl", None)) == 1200
    captions = read_aligned_prompts(folder / "xtd10.zh.txt", None)
    assert len(captions) == 1000
    assert captions[1].en == "a cat with its paws on a computer mouse at a desk"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"en": "a", "zh": "b"}\n{"en": "a"', r"a\.jsonl:2: not JSON .*cut short"),
        ("a.jsonl", '["a"]\n', r"a\.jsonl:1: a JSON list where an object is needed"),
        ("a.jsonl", '{"en": "a"}\n', r"a\.jsonl:1: no zh; the line has en"),
        ("a.jsonl", '{"en": "a", "zh": " "}\n', r"a\.jsonl:1: zh must be a prompt, not ' '"),
        ("a.jsonl", '{"en": "a", "zh": ["b"]}\n', r"a\.jsonl:1: zh must be a prompt, not \['b'\]"),
        ("a.jsonl", '{"en": "a", "zh": "\\ud800"}\n', r"a\.jsonl:1: zh holds half a character"),
        ("a.jsonl", '{"en": "a", "zh": "b"}\n' * 2, "fewer than two different English prompts"),
        ("a.zh.txt", "一\n\n三\n", r"a\.zh\.txt:2: prompt must be a prompt, not ''"),
        ("a.xlsx", "", "a file of an unknown kind; give JSON Lines"),
        ("a.csv", 'zh,en\n"一,a\n', r"a\.csv:\d: not CSV"),
    ],
)
def test_files_that_are_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "a.en.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(UserError, match=message):
        read_aligned_prompts(tmp_path / name, None)


def test_files_of_different_lengths_and_absent_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("一\n二\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("one\n")
    with pytest.raises(UserError, match="2 and 1 prompts; both must hold the same prompts, line by line"):
        read_aligned_prompts(tmp_path / "a.txt", tmp_path / "b.txt")
    (tmp_path / "c.zh.txt").write_text("一\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"c\.en\.txt: no such file"):
        read_aligned_prompts(tmp_path / "c.zh.txt", None)
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not valid UTF-8 at byte 0"):
        read_aligned_prompts(tmp_path / "d.txt", tmp_path / "b.txt")
