"""Faults of files as people have them: every record is a pair or a counted reject, and code is no text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.build.config import load_corpus_config
from data.cli import UserError
from tests.data.corpora import PAIRS, built, write_config
from tests.data.sources.test_readers import pairs, read, source

EN_ZH = {"en": "a", "zh": "b"}
RECORDS: dict[str, tuple[str, dict[str, Any], dict[str, str], int]] = {
    "tsv": ("tsv", {"files": ["a"]}, {"a": "one\t一\ntwo\n\nthree\t三"}, 4),
    "moses": ("moses", {"en": ["a"], "zh": ["b"]}, {"a": "one\n\n", "b": "一\n二\n"}, 2),
    "jsonl": ("jsonl", {"files": ["a"]}, {"a": '{"en": "one", "zh": "一"}\n{"en": 1}\n[]\nx\n\n'}, 5),
    "json": ("json", {"files": ["a"]}, {"a": '{"n": 2, "data": [{"en": "one", "zh": "一"}, {"en": "x"}, 3]}'}, 3),
    "csv": ("csv", {"files": ["a"]}, {"a": 'en,zh\n"o\nne",一\ntwo\nthree,三,x\n'}, 3),
    "mapping": ("mapping", {"files": ["a"]}, {"a": '{"k": {"one": "一", "two": ["二", "两"]}, "x": 3, "e": []}'}, 5),
    "yaml": ("mapping", {"files": ["a.yml"]}, {"a.yml": "k:\n  one: 一\n  two: [二, 两]\nx: [[3]]\n"}, 4),
    "tags": ("tags", {"files": ["a"]}, {"a": "- tags:\n    one: 一\n    two: [x]\n"}, 2),
    "sgml": (
        "sgml",
        {"en": ["a"], "zh": ["b"]},
        {
            "a": "<doc docid=d><seg id=1>If a < b & c > d <b>stop</b>.</seg><seg id=2>open\n<seg>no id</seg></doc>",
            "b": "<doc docid=d><seg id=1>如果</seg><seg id=2>开</seg></doc><doc docid=e><seg id=2>别的</seg></doc>",
        },
        4,
    ),
    "tmx": (
        "tmx",
        {"files": ["a"]},
        {
            "a": '<tmx><tu><tuv lang="en"><seg>a</seg></tuv><tuv lang="zh"><seg>一</seg></tuv></tu>'
            '<tu><tuv lang="en"/></tu><tu/></tmx>'
        },
        3,
    ),
    "srt": (
        "srt",
        {"files": ["a"]},
        {"a": "00:00:01,000 --> 00:00:02,000\n\n00:00:03,000 --> 00:00:04,000\n好\n"},
        2,
    ),
    "ass": ("srt", {"files": ["a"]}, {"a": "Dialogue: 0,0:00:01.00,0:00:02.00,D,,0,0,0,,A\\N好\nDialogue: x,y,z\n"}, 2),
    "captions": (
        "captions",
        {"en": "a", "zh": "b"},
        {"a": "1.jpg#0 A\nodd\n2.jpg#0 B", "b": "1.jpg#0 一\n3.jpg#1 三"},
        4,
    ),
    "cedict": ("cedict", {"files": ["a"]}, {"a": "# c\n猫 猫 [mao1] /cat/surname Mao/\nx\n"}, 4),
    "omw": (
        "omw",
        {"en": "a", "zh": "b"},
        {"a": "1\tlemma\tdog\n2\tlemma\tcat\n", "b": "1\tlemma\t狗\n3\tlemma\t鱼\n"},
        3,
    ),
    "csv numbers": (
        "csv",
        {"files": ["a"], "header": False, "en": 1, "zh": 3},
        {"a": "one,x,一\ntwo\n\nthree,,三\n"},
        3,
    ),
    "interleaved": ("interleaved", {"files": ["a"]}, {"a": "one\n一\n\ntwo\nthree\n三\n四\n"}, 4),
    "markdown": (
        "markdown",
        {"files": ["a"]},
        {"a": "# t\n| a | b |\n|---|---|\n| one | 一 |\n| two |\ntext\n\n| c | d |\n|:-:|---|\n| x | 三 |\n"},
        3,
    ),
    "wmt_xml": (
        "wmt_xml",
        {"files": ["a"]},
        {
            "a": '<dataset><doc id="d"><src lang="en"><p><seg id="1">a</seg><seg id="2">b</seg></p></src>'
            '<ref lang="zh" translator="A"><p><seg id="1">一</seg></p></ref></doc>'
            '<doc id="e"><src lang="en"><p><seg id="1">c</seg></p></src></doc></dataset>'
        },
        3,
    ),
    "po": (
        "by_key",
        {"files": ["a.po"]},
        {
            "a.po": 'msgid ""\nmsgstr ""\n"Language: zh_CN\\n"\n\nmsgid "one"\nmsgstr "一"\n\n#, fuzzy\nmsgid "two"\n'
            'msgstr "二"\n\nmsgid "three"\nmsgstr ""\n\n#~ msgid "old"\n#~ msgstr "旧"\n'
        },
        4,
    ),
    "locales": (
        "by_key",
        {"en": ["a.json"], "zh": ["b.json"]},
        {"a.json": '{"a": {"b": "one", "n": 3}, "c": "two"}', "b.json": '{"a": {"b": "一"}, "d": "四"}'},
        3,
    ),
    "subtitles": (
        "subtitles",
        {"en": ["a.srt"], "zh": ["b.srt"]},
        {
            "a.srt": "1\n00:00:01,000 --> 00:00:02,000\nOne\n\n2\n00:00:05,000 --> 00:00:06,000\nLone\n",
            "b.srt": "1\n00:00:01,000 --> 00:00:02,000\n一\n\n2\n00:00:08,000 --> 00:00:09,000\n独\n",
        },
        3,
    ),
    "lrc": ("subtitles", {"files": ["a"]}, {"a": "[ti:x]\n[00:01.00]The moon\n[00:01.00]月亮\n[00:02.00]alone\n"}, 2),
    "squad": (
        "squad",
        {"en": "a", "zh": "b"},
        {
            "a": '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q"}, {"question": "r"}]}]}]}',
            "b": '{"data": [{"paragraphs": [{"context": "丙", "qas": [{"question": "问"}, {}]}]}]}',
        },
        3,
    ),
    "prompt_list": (
        "prompt_list",
        {"en": "a", "zh": "b"},
        {
            "a": '[{"displayName": "a", "langName": "cat"}, {"displayName": "b", "langName": "dog"}, 3]',
            "b": '[{"displayName": "a", "langName": "猫"}, {"displayName": "c", "langName": "狗"}, 3]',
        },
        3,
    ),
    "poems": ("poems", {"files": ["a"]}, {"a": '[{"English": {"content": "a"}, "Chinese": {"content": "一"}}, 3]'}, 2),
}


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_of_a_file_is_kept_or_rejected(name: str, tmp_path: Path) -> None:
    kind, fields, files, records = RECORDS[name]
    for path, text in files.items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert len(read(source(kind, **fields), tmp_path)) == records


def test_sgml_text_with_angle_brackets(tmp_path: Path) -> None:
    for side, texts in (("en", ["If a < b we stop.", "&lt;b&gt;"]), ("zh", ["如果 a < b 就停。", "粗"])):
        segments = "".join(f'<seg id="{n}">{text}</seg>\n' for n, text in enumerate(texts, 1))
        (tmp_path / side).write_text(f'<doc docid="d">\n{segments}</doc>', encoding="utf-8")
    found = pairs(source("sgml", en=["en"], zh=["zh"]), tmp_path)
    assert found == [("If a < b we stop.", "如果 a < b 就停。"), ("<b>", "粗")]


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        (r'Press the <bpt i="1">\b </bpt>blue<ept i="1">\b0 </ept> button', "Press the blue button"),
        ("Hello <ph>{0}</ph>, welcome to <ph>{1}</ph>.", "Hello, welcome to."),
        ("<ph>&lt;br/&gt;</ph>One<ph/>two <hi>three</hi>", "One two three"),
        ("See<ph>{a <sub>the note</sub>}</ph> here", "Seethe note here"),
        ("按<ph>{0}</ph>键", "按键"),
        ("按 <ph>{0}</ph> 键", "按 键"),
    ],
)
def test_native_code_of_tmx_is_no_text(segment: str, text: str, tmp_path: Path) -> None:
    unit = f'<tu><tuv xml:lang="en-US"><seg>{segment}</seg></tuv><tuv xml:lang="cmn"><seg>一</seg></tuv></tu>'
    (tmp_path / "a.tmx").write_text(f'<tmx xmlns="http://x.y/tmx14"><body>{unit}</body></tmx>', encoding="utf-8")
    assert pairs(source("tmx", files=["a.tmx"]), tmp_path) == [(text, "一")]


@pytest.mark.parametrize("codes", [("en", "zh"), ("EN_us", "zh-Hant-TW"), ("eng", "zho"), ("en-GB", "chi")])
def test_language_codes_of_tmx(codes: tuple[str, str], tmp_path: Path) -> None:
    variants = "".join(f'<tuv xml:lang="{c}"><seg>{t}</seg></tuv>' for c, t in zip(codes, ("a", "一"), strict=True))
    (tmp_path / "a.tmx").write_text(f"<tmx><body><tu>{variants}</tu></body></tmx>", encoding="utf-8")
    assert pairs(source("tmx", files=["a.tmx"]), tmp_path) == [("a", "一")]
    assert pairs(source("tmx", files=["a.tmx"], en="en-US", zh="zh-CN"), tmp_path) == [("a", "一")]
    with pytest.raises(UserError, match=f"no unit has both 'fr' and 'zh'; its languages are {codes[0]}, {codes[1]}"):
        read(source("tmx", files=["a.tmx"], en="fr"), tmp_path)
    (tmp_path / "a.tmx").write_text("<tmx><body/></tmx>", encoding="utf-8")
    with pytest.raises(UserError, match="no <tu> with <tuv>"):
        read(source("tmx", files=["a.tmx"]), tmp_path)


def test_a_stray_quote_of_csv_is_named_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"row {n},第{n}行" for n in range(300)]
    rows[7] = '"row 7,第7行'
    (tmp_path / "a.csv").write_text("en,zh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv:9: a quoted cell runs over 293 lines; .*quotes: false"):
        read(source("csv", files=["a.csv"]), tmp_path)
    assert len(pairs(source("csv", files=["a.csv"], quotes=False), tmp_path)) == 300
    rows[107] = 'row 107,第107行"'
    (tmp_path / "a.csv").write_text("en,zh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv:9: a quoted cell runs over 101 lines"):  # closed by another stray one
        read(source("csv", files=["a.csv"]), tmp_path)
    poem = "\n".join(f"Line {n} of it," for n in range(120))
    (tmp_path / "a.csv").write_text(f'title,en,zh\nT,"{poem}",一\n', encoding="utf-8")
    assert len(pairs(source("csv", files=["a.csv"]), tmp_path)) == 1
    cells = ['"' + "x\n" * 15 + '",一'] * 20
    (tmp_path / "a.csv").write_text("en,zh\n" + "\n".join(cells) + "\n", encoding="utf-8")
    assert len(pairs(source("csv", files=["a.csv"]), tmp_path)) == 20
    assert "a.csv: 20 records in" in capsys.readouterr().err


def test_tag_tables_without_header_and_with_cell_options(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("long_hair,0,长发|长头发\n((glow:1.2)),0,发光\nbad_id,0,a|b\n", encoding="utf-8")
    options = {"underscores": "spaces", "weights": "strip", "split": "|"}
    made = source("csv", files=["tags.csv"], header=False, en=1, zh=3, **options)
    assert [(r["en"], r["zh"], r["line"], r["sub"]) for r in read(made, tmp_path)] == [
        ("long hair", "长发", 1, 1),
        ("long hair", "长头发", 1, 2),
        ("glow", "发光", 2, 0),
        ("bad id", "a", 3, 1),
        ("bad id", "b", 3, 2),
    ]
    (tmp_path / "tags.txt").write_text("1girl;一个女孩\nx;y;z\n", encoding="utf-8")
    assert pairs(source("tsv", files=["tags.txt"], delimiter=";"), tmp_path) == [("1girl", "一个女孩"), ("x", "y")]
    with pytest.raises(UserError, match=r"columns are numbers from 1, not \['en', 'zh'\]"):
        read(source("csv", files=["tags.csv"], header=False), tmp_path)


def test_cells_that_split_into_unequal_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a/b\t一/二\na/b\t一/二/三\n/\t一\n", encoding="utf-8")
    found = read(source("tsv", files=["a"], split="/"), tmp_path)
    assert [(r["en"], r["zh"], r["fault"]) for r in found] == [
        ("a", "一", ""), ("b", "二", ""), ("a/b", "一/二/三", "unaligned_lines"), ("/", "一", "unaligned_lines"),
    ]  # fmt: skip


def test_paragraphs_with_equally_many_sentences_are_split(tmp_path: Path) -> None:
    rows = [
        ("Mr. Li left. “Why?” Nobody knows!", "李先生走了。“为什么？”没人知道！"),
        ("One sentence. Two.", "一句。二句。三句。"),
        ("It costs 3.5 dollars at J. Crew.", "在杰克鲁要三块五。"),
    ]
    (tmp_path / "a").write_text("".join(f"{en}\t{zh}\n" for en, zh in rows), encoding="utf-8")
    found = read(source("tsv", files=["a"], sentences="split"), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["sub"]) for r in found] == [
        ("Mr. Li left.", "李先生走了。", 1, 1),
        ("“Why?”", "“为什么？”", 1, 2),
        ("Nobody knows!", "没人知道！", 1, 3),
        (*rows[1], 2, 0),
        (*rows[2], 3, 0),
    ]
    assert not any(r["fault"] for r in found)


def test_parts_of_speech_and_subjects_of_a_glossary(tmp_path: Path) -> None:
    """ECDICT's layout: senses a line, joined by a backslash and n, each with its part of speech or subject."""
    (tmp_path / "ecdict.csv").write_text(
        "word,phonetic,translation\ncat,kat,n. 猫\\n[医] 猫叫\nrun,ran,vi. 跑\\nn. 奔跑\netc.,,等等\n", encoding="utf-8"
    )
    made = source("csv", files=["ecdict.csv"], en="word", zh="translation", part_of_speech="strip", split="\\n")
    found = pairs(made, tmp_path)
    assert found == [("cat", "猫"), ("cat", "猫叫"), ("run", "跑"), ("run", "奔跑"), ("etc.", "等等")]


def test_nested_prompt_selectors_in_both_directions(tmp_path: Path) -> None:
    selector = {"人物": {"发型": {"长发": "long hair", "短发": ["short hair", "bob cut"]}}, "光": {"发光": "glow"}}
    expected = [("long hair", "长发"), ("short hair", "短发"), ("bob cut", "短发"), ("glow", "发光")]
    (tmp_path / "a.json").write_text(json.dumps(selector), encoding="utf-8")
    assert pairs(source("mapping", files=["a.json"], flipped=True), tmp_path) == expected
    (tmp_path / "a.yaml").write_text(json.dumps(selector, ensure_ascii=False, indent=1), encoding="utf-8")
    made = source("mapping", files=["a.yaml"], flipped=True)
    assert pairs(made, tmp_path) == expected
    assert [row["line"] for row in read(made, tmp_path)] == [4, 5, 5, 12]


def test_an_array_of_objects_with_and_without_a_key(tmp_path: Path) -> None:
    rows = [{"enCap": ["A man runs.", "He runs."], "chCap": ["一个男人在跑。", "他在跑。"], "videoID": "x_1"}]
    expected = [("A man runs.", "一个男人在跑。"), ("He runs.", "他在跑。")]
    for document, records in ((rows, ""), ({"data": rows}, ""), ({"a": [], "b": {"c": rows}}, "b.c")):
        (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
        made = source("json", files=["a.json"], en="enCap", zh="chCap", image="videoID", records=records)
        assert pairs(made, tmp_path) == expected
    with pytest.raises(
        UserError, match=r"a\.json: no list of objects; name its key in `records` of source x, its keys are a, b"
    ):
        read(source("json", files=["a.json"]), tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(UserError, match="no object has the key 'en'"):
        read(source("json", files=["a.json"]), tmp_path)


def test_json_of_the_other_kind_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps([{"en": "one", "zh": "一"}], indent=1), encoding="utf-8")
    with pytest.raises(UserError, match="a: no line is a JSON object; one JSON document has format json"):
        read(source("jsonl", files=["a"]), tmp_path)
    (tmp_path / "a").write_text('{"en": "one", "zh": "一"}\n' * 2, encoding="utf-8")
    with pytest.raises(UserError, match=r"a:2: not JSON .*one JSON value a line: use `format: jsonl`"):
        read(source("json", files=["a"]), tmp_path)


def test_english_captions_of_coco_join_chinese_lines(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 139, "file_name": "COCO_val2014_000000000139.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 139, "caption": "A cat."},
            {"image_id": 139, "caption": "A pet."},
        ],
    }
    (tmp_path / "captions_val2014.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "coco-cn.txt").write_text("COCO_val2014_000000000139#0\t一只猫。\n", encoding="utf-8")
    found = read(source("captions", en="captions_val2014.json", zh="coco-cn.txt"), tmp_path)
    assert [(r["en"], r["zh"], r["image"], r["fault"]) for r in found] == [
        ("A cat.", "一只猫。", "COCO_val2014_000000000139.jpg", ""),
        ("A pet.", "", "COCO_val2014_000000000139.jpg", "one_sided"),
    ]


@pytest.mark.parametrize("mark", ["#enc#", "#zhc#", "#zhb#", "#zhm#"])
def test_flickr8k_cn_marks(mark: str, tmp_path: Path) -> None:
    (tmp_path / "en").write_text(f"1.jpg{mark}0 A dog .\n", encoding="utf-8")
    (tmp_path / "zh").write_text(f"1.jpg{mark}0 一只狗\n", encoding="utf-8")
    assert pairs(source("captions", en="en", zh="zh"), tmp_path) == [("A dog .", "一只狗")]


def test_parquet_lists_pair_by_position(tmp_path: Path) -> None:
    pq.write_table(pa.table({"en": [["a", "b"], ["c"]], "zh": [["一", "二"], []]}), tmp_path / "a.parquet")
    found = read(source("parquet", files=["a.parquet"]), tmp_path)
    assert [(r["en"], r["zh"], r["sub"], r["fault"]) for r in found] == [
        ("a", "一", 1, ""), ("b", "二", 2, ""), ("c", "", 0, "unaligned_lines"),
    ]  # fmt: skip


def test_a_changed_local_copy_of_a_hub_data_set_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    config = write_config(
        tmp_path, [{"name": "a", "format": "hub", "id": "set", "en": "en", "zh": "zh"}], valid_per_domain=0
    )
    for rows in (PAIRS[:4], PAIRS[:7]):
        table = pa.table({"en": [en for en, _ in rows], "zh": [zh for _, zh in rows]})
        pq.write_table(table, tmp_path / "set" / "train.parquet")
        assert built(config, overwrite=True)["rows_kept"] == len(rows)
    assert load_corpus_config(config).sources[0].paths == (str(tmp_path / "set" / "train.parquet"),)


def test_webvtt_without_hours_and_two_styles_of_ass(tmp_path: Path) -> None:
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.500 align:start\n<c.en>Hello.</c>\n你好。\n"
    (tmp_path / "a.vtt").write_text(vtt, encoding="utf-8")
    assert pairs(source("srt", files=["a.vtt"]), tmp_path) == [("Hello.", "你好。")]
    line = "Dialogue: 0,0:00:0{n}.00,0:00:0{n}.90,{style},,0,0,0,,{text}\n"
    cues = [(1, "EN", "Hello."), (1, "ZH", "你好。"), (2, "ZH", "再见。"), (2, "EN", "Bye,{\\\\i1}\\Nall.")]
    (tmp_path / "a.ass").write_text("".join(line.format(n=n, style=s, text=t) for n, s, t in cues), encoding="utf-8")
    assert pairs(source("subtitles", files=["a.ass"]), tmp_path) == [("Hello.", "你好。"), ("Bye, all.", "再见。")]
