"""Files by key and other layouts that people have, in exact imitations of what is published."""

from pathlib import Path

import pytest

from data.cli import UserError
from tests.data.sources.test_readers import pairs, read, source

PO = """# Chinese translations
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"

#: main.c:12
msgid "Open file"
msgstr "打开文件"

#, fuzzy
msgid "Save"
msgstr "保存"

msgctxt "menu"
msgid "Close"
msgstr ""

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d 个文件"
"""
XLIFF = """<?xml version="1.0" encoding="UTF-8"?>
<xliff xmlns="urn:oasis:names:tc:xliff:document:1.2" version="1.2">
<file source-language="en" target-language="zh-CN"><body>
<trans-unit id="1"><source>Press <g id="1">OK</g><x id="2"/> now</source>
<target>现在按<g id="1">确定</g></target></trans-unit>
<trans-unit id="2"><source>Later</source><target state="needs-translation">Later</target></trans-unit>
</body></file></xliff>"""
XLIFF2 = """<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0" srcLang="en" trgLang="zh">
<file id="f"><unit id="1">
<segment><source>Hello <pc id="1">world</pc></source>
<target>你好，<pc id="1">世界</pc></target></segment></unit></file></xliff>"""
QT = """<?xml version="1.0" encoding="utf-8"?><!DOCTYPE TS><TS version="2.1" language="zh_CN"><context><name>Main</name>
<message><source>Quit</source><translation>退出</translation></message>
<message numerus="yes"><source>%n image(s)</source>
<translation><numerusform>%n 张图片</numerusform></translation></message>
<message><source>Draft</source><translation type="unfinished"></translation></message></context></TS>"""
ANDROID = """<?xml version="1.0" encoding="utf-8"?><resources>
<string name="app">{app}</string><string name="q">{q}</string>
<string-array name="days"><item>{day}</item></string-array>
<plurals name="n"><item quantity="other">{many}</item></plurals></resources>"""


@pytest.mark.parametrize(
    ("name", "text", "expected", "faults"),
    [
        ("a.po", PO, [("Open file", "打开文件"), ("%d files", "%d 个文件")], ["fuzzy", "one_sided"]),
        ("a.xlf", XLIFF, [("Press OK now", "现在按确定")], ["fuzzy"]),
        ("a.xliff", XLIFF2, [("Hello world", "你好，世界")], []),
        ("a.ts", QT, [("Quit", "退出"), ("%n image(s)", "%n 张图片")], ["fuzzy"]),
    ],
)
def test_files_of_both_languages(
    name: str, text: str, expected: list[tuple[str, str]], faults: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    made = source("by_key", files=[name])
    assert pairs(made, tmp_path) == expected
    assert [row["fault"] for row in read(made, tmp_path) if row["fault"]] == faults
    assert pairs(source("by_key", files=[name], flipped=True), tmp_path)[0] == expected[0][::-1]


TWO_FILES = {
    "android": (
        "strings.xml",
        ANDROID.format(app="Gallery", q=r"Don\'t \u2026 stop", day="Monday", many="%d days"),
        ANDROID.format(app="图库", q="别停", day="星期一", many="%d 天"),
        [("Gallery", "图库"), ("Don't … stop", "别停"), ("Monday", "星期一"), ("%d days", "%d 天")],
    ),
    "ios": (
        "Localizable.strings",
        '/* Title */\n"title" = "Say \\"hi\\"";\n"only" = "Only English";\n',
        '"title" = "说“嗨”";\n',
        [('Say "hi"', "说“嗨”")],
    ),
    "java": (
        "x.properties",
        "# c\na.b = One \\\n  line\nc: Two\n",
        "a.b=\\u4e00\nc=二\n",
        [("One line", "一"), ("Two", "二")],
    ),
    "json": (
        "en.json",
        '{"a": {"b": "One", "n": 1}, "c": ["Two"]}',
        '{"c": ["二"], "a": {"b": "一"}}',
        [("One", "一"), ("Two", "二")],
    ),
    "flutter": (
        "app.arb",
        '{"@@locale": "en", "t": "Tree", "@t": {"description": "x"}}',
        '{"t": "树"}',
        [("Tree", "树")],
    ),
    "rails": ("en.yml", "en:\n  a:\n    b: One\n", "zh-CN:\n  a:\n    b: 一\n", [("One", "一")]),
    "po keys": ("a.po", 'msgid "k"\nmsgstr "Key"\n', 'msgid "k"\nmsgstr "键"\n', [("Key", "键")]),
}


@pytest.mark.parametrize("kind", TWO_FILES)
def test_two_files_join_by_key(kind: str, tmp_path: Path) -> None:
    name, en, zh, expected = TWO_FILES[kind]
    for folder, text in (("en", en), ("zh", zh)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text, encoding="utf-8")
    found = read(source("by_key", en=[f"en/{name}"], zh=[f"zh/{name}"]), tmp_path)
    assert [(row["en"], row["zh"]) for row in found if not row["fault"]] == expected
    assert {row["fault"] for row in found} <= {"", "one_sided"}


def test_other_files_by_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(UserError, match=r"a\.docx: \.docx is not one of \.po, \.xlf"):
        read(source("by_key", files=["a.docx"]), tmp_path)
    (tmp_path / "a.ts").write_text("<TS><context>")
    with pytest.raises(UserError, match=r"a\.ts:1: not well-formed XML"):
        read(source("by_key", files=["a.ts"]), tmp_path)
    (tmp_path / "a.strings").write_text("nothing")
    with pytest.raises(UserError, match=r"a\.strings: no entry in it"):
        read(source("by_key", files=["a.strings"]), tmp_path)


def test_wmt_xml_with_two_references(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        """<?xml version='1.0' encoding='utf-8'?><dataset id="newstest2021"><doc origlang="zh" id="d"><src lang="zh"><p>
<seg id="1">早上好。</seg></p><p><seg id="2">再见。</seg></p></src>
<ref lang="en" translator="A"><p><seg id="1">Good morning.</seg><seg id="2">Goodbye.</seg></p></ref>
<ref lang="en" translator="B"><p><seg id="1">Morning.</seg></p></ref></doc></dataset>""",
        encoding="utf-8",
    )
    found = read(source("wmt_xml", files=["a.xml"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["sub"], r["fault"]) for r in found] == [
        ("Good morning.", "早上好。", 1, 1, ""),
        ("Morning.", "早上好。", 1, 2, ""),
        ("Goodbye.", "再见。", 2, 1, ""),
        ("", "再见。", 2, 2, "one_sided"),
    ]


def test_interleaved_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n一。\n\n二。\nTwo.\n\nLone.\nThree.\n三。\n四。", encoding="utf-8")
    found = read(source("interleaved", files=["a.txt"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["fault"]) for r in found] == [
        ("One.", "一。", 1, ""), ("Two.", "二。", 4, ""), ("Lone.", "", 7, "one_sided"), ("Three.", "三。", 8, ""),
        ("", "四。", 10, "one_sided"),
    ]  # fmt: skip


def test_tables_of_markdown(tmp_path: Path) -> None:
    text = (
        "# Tags\n\n| Tag | 中文 | Use |\n|:--|:--:|---|\n| `long hair` | [长发](x.md) | a |\n"
        "| **glow** \\| shine | 发光 |\n| x |\n\n"
        "| Other |\n| --- |\n| y |\n"
    )
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    for columns in ({"en": "Tag", "zh": "中文"}, {"en": 1, "zh": 2}):
        found = read(source("markdown", files=["a.md"], **columns), tmp_path)
        assert [(r["en"], r["zh"], r["line"], r["fault"]) for r in found[:3]] == [
            ("long hair", "长发", 5, ""), ("glow | shine", "发光", 6, ""), ("", "", 7, "columns"),
        ]  # fmt: skip
    with pytest.raises(UserError, match="no Markdown table with the columns 'a' and 'b'"):
        read(source("markdown", files=["a.md"], en="a", zh="b"), tmp_path)


def test_bilingual_lyrics(tmp_path: Path) -> None:
    text = (
        "[ti:Song]\n[00:01.00]The moon\n[00:01.00]月亮\n[00:05.50][00:09.50]Rises\n[00:05.50]升起\n[00:09.50]又升起\n"
    )
    (tmp_path / "a.lrc").write_text(text, encoding="utf-8")
    assert pairs(source("subtitles", files=["a.lrc"]), tmp_path) == [
        ("The moon", "月亮"), ("Rises", "升起"), ("Rises", "又升起"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xlf", '<xliff><file source-language="zh-CN" target-language="en"><body><trans-unit id="1">'
                  "<source>打开(&amp;O)</source><target>&amp;Open</target></trans-unit></body></file></xliff>"),
        ("a.ts", '<TS version="2.1" sourcelanguage="zh_CN" language="en"><context><name>n</name><message>'
                 "<source>打开(&amp;O)</source><translation>&amp;Open</translation></message></context></TS>"),
        ("a.po", 'msgid ""\nmsgstr ""\n"Language: en_US\\n"\n\nmsgid "打开(_O)"\nmsgstr "_Open"\n'),
        ("b.po", 'msgid ""\nmsgstr ""\n"Language: zh_CN\\n"\n\nmsgid "_Open"\nmsgstr "打开（_O）"\n'),
    ],
)  # fmt: skip
def test_a_file_says_which_language_it_is_from_and_keys_of_menus_go(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    (row,) = read(source("by_key", files=[name]), tmp_path)
    assert (row["en"], row["zh"], row["fault"]) == ("Open", "打开", "")
