"""Sheets of workbooks, and corpora by their name in an index."""

import fnmatch
import importlib.util
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml

from data.build.config import load_corpus_config
from data.cli import UserError
from data.fetch import fetch
from data.sources.delimited import Tsv
from tests.data.corpora import write_config
from tests.data.sources.test_readers import read, source

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
}
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def workbook(**sheets: list[list[str | int]]) -> bytes:
    """An .xlsx with inline strings, as spreadsheet programs write."""
    parts, names, links = dict(PARTS), "", ""
    for number, (name, rows) in enumerate(sheets.items(), 1):
        names += f'<sheet name="{name}" sheetId="{number}" r:id="s{number}"/>'
        links += (
            f'<Relationship Id="s{number}" Target="worksheets/sheet{number}.xml" '
            'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"/>'
        )
        cells = [
            f'<c r="{chr(65 + column)}{row}" t="inlineStr"><is><t>{value}</t></is></c>'
            if isinstance(value, str)
            else f'<c r="{chr(65 + column)}{row}"><v>{value}</v></c>'
            for row, values in enumerate(rows, 1)
            for column, value in enumerate(values)
        ]
        data = "".join(f"<row>{cell}</row>" for cell in cells)
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{MAIN}"><sheetData>{data}</sheetData></worksheet>'
        )
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    parts["xl/workbook.xml"] = f'<workbook xmlns="{MAIN}" xmlns:r="{relations}"><sheets>{names}</sheets></workbook>'
    parts["xl/_rels/workbook.xml.rels"] = PARTS["_rels/.rels"].split("<Relationship ")[0] + links + "</Relationships>"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return out.getvalue()


def test_a_sheet_by_header_by_number_and_by_name(tmp_path: Path) -> None:
    rows: list[list[str | int]] = [
        ["id", "English", "中文"],
        [1, "cat", "猫"],
        ["", "", ""],
        [2, "dog"],
        [3, "2024", 5],
    ]
    (tmp_path / "a.xlsx").write_bytes(workbook(Sheet1=rows, Other=[["one", "一"]]))
    found = read(source("xlsx", files=["a.xlsx"], en="English", zh="中文", image="id"), tmp_path)
    assert [(row["en"], row["zh"], row["image"], row["line"]) for row in found] == [
        ("cat", "猫", "1", 2), ("dog", "", "2", 4), ("2024", "5", "3", 5),
    ]  # fmt: skip
    found = read(source("xlsx", files=["a.xlsx"], sheet="Other", header=False, en=1, zh=2), tmp_path)
    assert [(row["en"], row["zh"]) for row in found] == [("one", "一")]


def test_mistakes_with_a_workbook(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(workbook(Sheet1=[["English", "中文"]]))
    for fields, match in (
        ({}, r"a\.xlsx:1: no column 'en'; the header has English, 中文"),
        ({"sheet": "B"}, r"a\.xlsx: no sheet 'B'; it has Sheet1"),
        ({"header": False}, r"a\.xlsx:1: with `header: false`, columns are numbers from 1"),
    ):
        with pytest.raises(UserError, match=match):
            read(source("xlsx", files=["a.xlsx"], **fields), tmp_path)
    (tmp_path / "a.xlsx").write_bytes(b"no workbook")
    with pytest.raises(UserError, match=r"a\.xlsx: not a readable workbook"):
        read(source("xlsx", files=["a.xlsx"]), tmp_path)


INDEX = """
from types import SimpleNamespace as Entry

class INDEX:
    ref_db = Entry(get_bibtex=lambda key: "@book{" + key + ",\\n title = {T}}")
    def get_entries():
        print("INFO loading")
        return [
            Entry(did="OPUS-ccmatrix-v1-eng-zho", url="https://a.org/OPUS-CCMatrix/v1/moses/en-zh.txt.zip", ext="zip",
                  in_paths=["*.en", "*.zh"], in_ext="txt", cols=None, cite=("tiedemann2012parallel",)),
            Entry(did="Facebook-wikimatrix-1-eng-zho", url="https://a.org/w.tsv.gz", ext="tsv.gz", in_paths=None,
                  in_ext=None, cols=(1, 2), cite=None),
        ]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of two sources, beside an imitation of mtdata's index."""
    (tmp_path / "site" / "mtdata").mkdir(parents=True)
    (tmp_path / "site" / "mtdata" / "__init__.py").touch()
    (tmp_path / "site" / "mtdata" / "index.py").write_text(INDEX, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (documented,) = re.findall(r"^- (\{.*format: mtdata.*\})$", PAGE, re.MULTILINE)
    wikimatrix = {"name": "wikimatrix", "format": "mtdata", "id": "Facebook-wikimatrix-1-eng-zho"}
    return write_config(tmp_path, [yaml.safe_load(documented), wikimatrix])


def test_a_corpus_by_its_name_is_looked_up_fetched_and_read(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UserError, match=r"ccmatrix: OPUS-ccmatrix-v1-eng-zho is not fetched; run `python -m data.fetch"
    ):
        load_corpus_config(config)
    fetched = dict[str, str]()
    monkeypatch.setattr("data.fetch.fetch_file", lambda each, target, sleep: fetched.update({each.url: target.name}))
    assert fetch(config) == 2
    assert fetched == {
        "https://a.org/OPUS-CCMatrix/v1/moses/en-zh.txt.zip": "OPUS-ccmatrix-v1-eng-zho.zip",
        "https://a.org/w.tsv.gz": "Facebook-wikimatrix-1-eng-zho.tsv.gz",
    }
    printed = capsys.readouterr().out
    assert "OPUS-ccmatrix-v1-eng-zho: https://a.org/OPUS-CCMatrix" in printed
    assert "cite @book{tiedemann2012parallel, title = {T}}" in printed
    with zipfile.ZipFile(config.parent / "mtdata" / "OPUS-ccmatrix-v1-eng-zho.zip", "w") as archive:
        for name, text in (("README", "x"), ("CCMatrix.en-zh.en", "A dog.\n"), ("CCMatrix.en-zh.zh", "一只狗。\n")):
            archive.writestr(name, text)
    moses, tsv = load_corpus_config(config).sources
    assert [(row["en"], row["zh"]) for row in read(moses, config.parent)] == [("A dog.", "一只狗。")]
    assert vars(tsv) | {"files": ("mtdata/Facebook-wikimatrix-1-eng-zho.tsv.gz",), "en": 2, "zh": 3} == vars(tsv)


INDEXED = {
    "ccmatrix": "OPUS-ccmatrix-v1-eng-zho",
    "unpc": "OPUS-unpc-v1.0-eng-zho",
    "opensubtitles": "OPUS-opensubtitles-v2018-eng-zho_CN",
    "ted2020": "OPUS-ted2020-v1-eng-zho_CN",
    "wikimatrix": "Facebook-wikimatrix-1-eng-zho",
    "news-commentary": "Statmt-news_commentary-18-eng-zho",
}
"""Source of configs/corpus/skyclip-150m.yaml -> id in mtdata's index."""


@pytest.mark.slow  # mtdata indexes for a minute at its first import
@pytest.mark.skipif(importlib.util.find_spec("mtdata") is None, reason="needs the extra `mtdata`")
def test_the_large_config_has_the_addresses_and_layouts_of_the_real_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = load_corpus_config(Path(__file__).parents[3] / "configs" / "corpus" / "skyclip-150m.yaml")
    fetched = dict[str, str]()
    monkeypatch.setattr("data.fetch.fetch_file", lambda each, target, sleep: fetched.update({each.url: each.path}))
    config = write_config(tmp_path, [{"name": n, "format": "mtdata", "id": each} for n, each in INDEXED.items()])
    assert fetch(config) == len(INDEXED)
    addresses = {each.url for each in large.config.downloads if re.search("pouta|fbaipub|statmt", each.url)}
    assert fetched.keys() == addresses
    by_hand = {each.name: each for each in large.sources}
    for found in load_corpus_config(config).sources:
        assert type(found) is type(by_hand[found.name])
        for column in ("en", "zh") if isinstance(found, Tsv) else ():
            assert vars(found)[column] == vars(by_hand[found.name])[column]
        for ours, pattern in zip(by_hand[found.name].paths, found.paths, strict=True):
            assert fnmatch.fnmatch(ours.partition("!")[2], pattern.partition("!")[2])


@pytest.mark.parametrize(
    ("name", "note", "kind"),
    [
        ("S-nc-13-zho-eng", {"ext": "tgz", "members": ["a/x.zh", "a/x.en"], "layout": "txt"}, "Moses"),
        ("S-titles-3-zho-eng", {"ext": "tsv"}, "Tsv"),
        ("S-test-2017-zho-eng", {"ext": "tgz", "members": ["t.zh.sgm", "t.en.sgm"], "layout": "sgm"}, "Sgml"),
        ("S-test-2021-eng-zho", {"ext": "tgz", "members": ["t.xml"], "layout": "wmt21xml"}, "WmtXml"),
        ("E-health-1-eng-zho", {"ext": "zip", "members": ["en-zh.tmx"], "layout": "tmx"}, "Tmx"),
        ("S-back-1-eng-zho", {"ext": "txt.gz", "urls": ["https://a/en.gz", "https://a/zh.gz"]}, "Moses"),
    ],
)
def test_every_layout_of_the_index_has_its_reader(
    name: str, note: dict[str, object], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "mtdata").mkdir()
    (tmp_path / "mtdata" / f"{name}.json").write_text(json.dumps({"urls": ["https://a/x"]} | note), encoding="utf-8")
    made = source("mtdata", id=name).expanded(str(tmp_path))
    assert type(made).__name__ == kind
    if kind in ("Moses", "Sgml"):
        assert ("en" in made.paths[0].rpartition("!")[2]) or made.paths[0].endswith(".0.txt.gz")
    if kind == "Tsv":
        assert vars(made)["en"] == 2


def test_mistakes_with_an_index(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(config.parent, [{"name": "x", "format": "mtdata", "id": "OPUS-ccaligned-v1-eng-zho"}])
    with pytest.raises(UserError, match="knows no 'OPUS-ccaligned-v1-eng-zho'; `mtdata list"):
        fetch(config)
    write_config(config.parent, [{"name": "x", "format": "mtdata", "id": "OPUS-ccmatrix-v2-eng-zho"}])
    with pytest.raises(UserError, match="knows no 'OPUS-ccmatrix-v2-eng-zho'; there are OPUS-ccmatrix-v1-eng-zho"):
        fetch(config)
    (config.parent / "site" / "mtdata" / "index.py").write_text("import mtdata.none", encoding="utf-8")
    with pytest.raises(UserError, match="mtdata: ModuleNotFoundError"):
        fetch(config)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr("data.sources.mtdata.QUERY", "import mtdata")
    with pytest.raises(UserError, match=r"pip install 'yuqiao\[mtdata\]'"):
        fetch(config)
