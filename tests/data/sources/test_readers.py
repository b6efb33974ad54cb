"""Every format on a hand-made excerpt in its published shape."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.build.config import FORMATS
from data.cli import UserError, checked_config
from data.sources.base import Source


def source(kind: str, **fields: Any) -> Source:  # noqa: ANN401
    base = {"name": "x", "domain": "general", "license": "CC0"}
    return checked_config({**base, **fields}, FORMATS[kind], "test: ")


def read(made: Source, root: Path) -> list[dict[str, Any]]:
    return list(pa.Table.from_batches(list(made.batches(str(root)))).to_pylist())


def pairs(made: Source, root: Path) -> list[tuple[str, str]]:
    return [(row["en"], row["zh"]) for row in read(made, root) if not row["fault"]]


def test_tsv_takes_columns_by_number_and_counts_bad_lines(tmp_path: Path) -> None:
    text = "id\ten\tzh\n1\tone\t一\n2\ttwo\n\n4\tfour\t四\textra\r\n"
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    found = read(source("tsv", files=["a.tsv"], en=2, zh=3, skip=1), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["fault"]) for r in found] == [
        ("one", "一", 2, ""),
        ("2\ttwo", "", 3, "columns"),
        ("", "", 4, "blank"),
        ("four", "四", 5, ""),
    ]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_compression_is_seen_from_the_name(tmp_path: Path, suffix: str) -> None:
    data, path = "one\t一\n".encode(), tmp_path / f"a.tsv{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../outside/a.tsv", data)
    elif suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(data)
    else:
        import bz2
        import lzma

        packed = {"": data, ".gz": gzip.compress(data), ".bz2": bz2.compress(data), ".xz": lzma.compress(data)}
        path.write_bytes(packed[suffix])
    assert pairs(source("tsv", files=[path.name]), tmp_path) == [("one", "一")]
    assert not (tmp_path.parent / "outside").exists()


def test_zip_members_are_named_after_an_exclamation_mark(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "en-zh.txt.zip", "w") as archive:
        archive.writestr("TED2020.en-zh.en", "one\ntwo\n")
        archive.writestr("TED2020.en-zh.zh", "一\n二\n")
    made = source("moses", en=["en-zh.txt.zip!TED2020.en-zh.en"], zh=["en-zh.txt.zip!TED2020.en-zh.zh"])
    assert pairs(made, tmp_path) == [("one", "一"), ("two", "二")]
    with pytest.raises(UserError, match=r"no member.*TED2020\.en-zh\.en"):
        read(source("moses", en=["en-zh.txt.zip"], zh=["en-zh.txt.zip!TED2020.en-zh.zh"]), tmp_path)


def test_lines_split_across_blocks_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.sources.io.BLOCK_BYTES", 7)
    written = [(f"word {n}", "字" * (n % 5 + 1)) for n in range(50)]
    (tmp_path / "a.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in written), encoding="utf-8")
    found = read(source("tsv", files=["a.tsv"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"]) for r in found] == [(a, b, n) for n, (a, b) in enumerate(written, 1)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.tsv").write_text("one\t一\n", encoding=encoding)
    given = "utf-8" if encoding == "utf-8-sig" else encoding
    assert pairs(source("tsv", files=["a.tsv"], encoding=given), tmp_path) == [("one", "一")]


def test_moses_carries_image_ids(tmp_path: Path) -> None:
    for name, text in (("a.en", "one\ntwo\n"), ("a.zh", "一\n二"), ("a.img", "1.jpg\n2.jpg\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = read(source("moses", en=["a.en"], zh=["a.zh"], image=["a.img"]), tmp_path)
    assert [(r["en"], r["zh"], r["image"], r["line"]) for r in found] == [
        ("one", "一", "1.jpg", 1),
        ("two", "二", "2.jpg", 2),
    ]


def test_moses_of_different_length_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\nthree\n", encoding="utf-8")
    (tmp_path / "a.zh").write_text("一\n二\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.en has 3 lines, a\.zh has 2 lines.*line 3"):
        read(source("moses", en=["a.en"], zh=["a.zh"]), tmp_path)


def test_jsonl_dotted_keys_lists_and_bad_lines(tmp_path: Path) -> None:
    lines = [
        {"t": {"en": "one", "zh": "一"}, "image": "7.jpg"},
        {"t": {"en": ["two", "three"], "zh": ["二", "三"]}, "image": "8.jpg"},
        {"t": {"en": ["four", "five"], "zh": ["四"]}, "image": "9.jpg"},
        {"t": {"en": "lone \ud800", "zh": "孤"}, "image": "9.jpg"},
        {"other": 1},
    ]
    text = "\n".join([*map(json.dumps, lines), '{"t": ', ""])
    (tmp_path / "a.jsonl").write_text(text + "\n", encoding="utf-8")
    found = read(source("jsonl", files=["a.jsonl"], en="t.en", zh="t.zh", image="image"), tmp_path)
    assert [(r["en"], r["zh"], r["image"], r["line"], r["sub"], r["fault"]) for r in found] == [
        ("one", "一", "7.jpg", 1, 0, ""),
        ("two", "二", "8.jpg", 2, 1, ""),
        ("three", "三", "8.jpg", 2, 2, ""),
        ("four\nfive", "四", "9.jpg", 3, 0, "unaligned_lines"),
        ("lone \ufffd", "孤", "9.jpg", 4, 0, ""),
        ("", "", "", 5, 0, "keys"),
        ('{"t": ', "", "", 6, 0, "json"),
        ("", "", "", 7, 0, "blank"),
    ]


def test_jsonl_key_that_no_line_has(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"en": "one", "zh": "一"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl: no line has the key 'cn'"):
        read(source("jsonl", files=["a.jsonl"], zh="cn"), tmp_path)


def test_poetmt_lines_are_unglued(tmp_path: Path) -> None:
    poem = {"src": "（一）红豆生南国，春来发几枝？注释：[1]", "ref": "(I)The red beans grow in southern land.How many?"}
    (tmp_path / "a.jsonl").write_text(json.dumps(poem) + "\n", encoding="utf-8")
    found = pairs(source("jsonl", files=["a.jsonl"], en="ref", zh="src", glued=True), tmp_path)
    assert found == [("The red beans grow in southern land. How many?", "红豆生南国，春来发几枝？")]


def test_csv_poem_cells_give_the_poem_and_its_lines(tmp_path: Path) -> None:
    text = 'title,ch,en\nT,"白日依山盡，\n黃河入海流。\n","The sun sets,\n\nThe river flows."\nU,"一行","a\nb"\nshort\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    found = read(source("csv", files=["a.csv"], zh="ch", split_lines=True), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["sub"], r["fault"]) for r in found] == [
        ("The sun sets, The river flows.", "白日依山盡，黃河入海流。", 2, 0, ""),
        ("The sun sets,", "白日依山盡，", 2, 1, ""),
        ("The river flows.", "黃河入海流。", 2, 2, ""),
        ("a b", "一行", 7, 0, ""),
        ("a\nb", "一行", 7, 1, "unaligned_lines"),
        ("", "", 9, 0, "columns"),
    ]


def test_csv_without_the_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("en,cn\na,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv:1: no column 'zh'; the header has en, cn"):
        read(source("csv", files=["a.csv"]), tmp_path)


def test_squad_contexts_and_questions(tmp_path: Path) -> None:
    def document(context: str, questions: list[str]) -> str:
        qas = [{"question": q, "id": "1"} for q in questions]
        return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]})

    (tmp_path / "en.json").write_text(document("Rome fell.", ["Who?", "When?"]), encoding="utf-8")
    (tmp_path / "zh.json").write_text(document("罗马灭亡。", ["谁？", "何时？"]), encoding="utf-8")
    found = pairs(source("squad", en="en.json", zh="zh.json"), tmp_path)
    assert found == [("Rome fell.", "罗马灭亡。"), ("Who?", "谁？"), ("When?", "何时？")]


def test_prompt_lists_must_agree_on_their_key(tmp_path: Path) -> None:
    en = [{"displayName": "a", "langName": "cat"}, {"displayName": "b", "langName": "dog"}]
    zh = [{"displayName": "a", "langName": "猫"}, {"displayName": "c", "langName": "鱼"}]
    (tmp_path / "en.json").write_text(json.dumps(en), encoding="utf-8")
    (tmp_path / "zh.json").write_text(json.dumps(zh), encoding="utf-8")
    found = read(source("prompt_list", en="en.json", zh="zh.json"), tmp_path)
    assert [(r["en"], r["fault"]) for r in found] == [("cat", ""), ("dog", "unaligned_lines")]


def test_nested_poem_json(tmp_path: Path) -> None:
    poem = {
        "English": {"content": ["The sun sets,", "The river flows."]},
        "Chinese": {"content": ["白日尽，", "河流。"]},
    }
    (tmp_path / "a.json").write_text(json.dumps([poem]), encoding="utf-8")
    assert pairs(source("poems", files=["a.json"]), tmp_path) == [
        ("The sun sets, The river flows.", "白日尽，河流。"),
        ("The sun sets,", "白日尽，"),
        ("The river flows.", "河流。"),
    ]


def test_prompt_tags_in_yaml_groups(tmp_path: Path) -> None:
    head = "# head\n- name: 人物\n  groups:\n    - name: 对象\n      color: red\n      tags:\n"
    text = head + "        red_hair: 红发\n        ((glow)): 发光\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    found = read(source("tags", files=["a.yaml"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"]) for r in found] == [("red hair", "红发", 7), ("glow", "发光", 8)]


def test_cedict_gives_short_glosses(tmp_path: Path) -> None:
    text = (
        "# CC-CEDICT\n"
        "貓 猫 [mao1] /cat (CL:隻|只[zhi1])/(dialect) to hide oneself/abbr. for something/\n"
        "張 张 [Zhang1] /surname Zhang/\n"
        "畫龍點睛 画龙点睛 [hua4 long2 dian3 jing1] /to paint a dragon (idiom); fig. to add the finishing touch/\n"
        "broken line\n"
    )
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = read(source("cedict", files=["a.txt"]), tmp_path)
    assert [(r["en"], r["zh"]) for r in found if not r["fault"]] == [
        ("cat", "猫"),
        ("to hide oneself", "猫"),
        ("to add the finishing touch", "画龙点睛"),
    ]
    assert [r["fault"] for r in found if r["fault"]] == ["comment", "gloss", "gloss", "columns"]


def test_bilingual_srt(tmp_path: Path) -> None:
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\n<1-1,ANN>你好\n<1-1,ANN>Hello.\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n{\\an8}He said\nnothing.\n他什么都没说\n"
    )
    (tmp_path / "a.srt").write_text(text, encoding="utf-8")
    found = read(source("srt", files=["a.srt"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"]) for r in found] == [
        ("Hello.", "你好", 2),
        ("He said nothing.", "他什么都没说", 7),
    ]


def test_lines_of_one_sentence_are_joined() -> None:
    from data.sources.base import RAW
    from data.sources.cells import join_continued_lines

    en = ["Hey, we were able to confirm", "that he left", "on Friday.", "Really?", "and how", "Cut", "b", "c", "d", "e"]
    rows = [
        dict.fromkeys(RAW.names, "") | {"en": t, "zh": str(n), "file": 0, "line": n, "sub": 0} for n, t in enumerate(en)
    ]
    rows[4]["fault"] = "bad"
    found = join_continued_lines(pa.RecordBatch.from_pylist(rows, RAW)).to_pylist()
    assert [(r["en"], r["zh"]) for r in found if not r["fault"]] == [
        ("Hey, we were able to confirm that he left on Friday.", "0 1 2"),
        ("Really?", "3"),
        ("Cut b c d", "5 6 7 8"),
        ("e", "9"),
    ]
    assert [r["fault"] for r in found] == ["", "joined", "joined", "", "bad", "", "joined", "joined", "joined", ""]


@pytest.mark.parametrize("format_name", ["subtitles", "by_key", "sgml"])
def test_files_that_pair_by_position_are_equally_many(format_name: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("", encoding="utf-8")
    reader = source(format_name, en=("a", "b"), zh=("c",))
    with pytest.raises(UserError, match="en has 2 files, zh 1; they pair by position"):
        list(reader.read(str(tmp_path)))
