"""Mutated files of every format: a clear error or counted rows, never a crash, a hang or a file outside."""

import bz2
import gzip
import io
import json
import random
import tarfile
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.cli import UserError
from data.sources.base import RAW, Source
from data.sources.cells import join_continued_lines
from tests.data.sources.test_readers import source
from tests.data.sources.test_workbooks_and_indices import workbook


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"en": ["one", "two"], "zh": ["一", "二"]}), out)
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../up.tsv", "one\t一\n")
    return out.getvalue()


def _tar() -> bytes:
    out, entry = io.BytesIO(), tarfile.TarInfo("a")
    entry.size = len(TSV)
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.addfile(entry, io.BytesIO(TSV))
    return out.getvalue()


TSV = "one\t一\ntwo\t二\nthree\t三\r\n".encode()
WMT = b"<d><doc id='x'><src lang='en'><seg id='1'>a</seg></src><ref lang='zh'><seg id='1'>b</seg></ref></doc></d>"
XLIFF = b"<xliff><trans-unit id='1'><source>a<x/>b</source><target>c</target></trans-unit></xliff>"
QT = b"<TS><context><name>n</name><message><source>a</source><translation>b</translation></message></context></TS>"
COCO = b'{"images":[{"id":1,"file_name":"1.jpg"}],"annotations":[{"image_id":1,"caption":"A"}]}'
POEM = json.dumps([{"English": {"content": ["a", "b"]}, "Chinese": {"content": ["一", "二"]}}]).encode()
SQUAD = json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q"}]}]}]}).encode()
LIST = json.dumps([{"displayName": "a", "langName": "cat"}]).encode()
SRT = (
    "1\n00:00:01,000 --> 00:00:02,000\n<1-1,ANN>你好\nHello.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye\n再见\n".encode()
)
ASS = "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,你好\\NHello\n".encode()
TMX = """<?xml version="1.0"?><tmx><body><tu><tuv xml:lang="en"><seg>a</seg></tuv>
<tuv xml:lang="zh"><seg>一</seg></tuv></tu></body></tmx>""".encode()
SGML = b'<doc docid="d"><seg id="1">a</seg>\n<seg id="2">b</seg></doc>'
CEDICT = "# c\n貓 猫 [mao1] /cat (CL:隻|只[zhi1])/to hide/\n畫 画 [hua4] /lit. x; fig. to draw/\n".encode()
ABSTRACTS = (
    "<feed><doc><title>Wikipedia: A</title><abstract>An <b>a</b> letter.</abstract></doc>"
    "<doc><title>Wikipedia: 無</title><abstract>字母。</abstract><links/></doc></feed>"
).encode()
SQL = "INSERT INTO `langlinks` VALUES (12,'zh','無');INSERT INTO `page` VALUES (12,0,'A','');\n".encode()
OMW = "01-n\tlemma\tdog\n01-n\tcmn:lemma\t狗\n".encode()

CASES: dict[str, tuple[str, dict[str, Any], dict[str, bytes]]] = {
    "tsv": ("tsv", {"files": ["a"]}, {"a": TSV}),
    "tsv scored": ("tsv", {"files": ["a"], "score": 1, "en": 2, "zh": 3}, {"a": b"1.5\ta\tb\n1\tc\td\n"}),
    "tsv gz": ("tsv", {"files": ["a.gz"]}, {"a.gz": gzip.compress(TSV)}),
    "tsv bz2": ("tsv", {"files": ["a.bz2"]}, {"a.bz2": bz2.compress(TSV)}),
    "tsv zip": ("tsv", {"files": ["a.zip"]}, {"a.zip": _zip()}),
    "tsv utf-16": ("tsv", {"files": ["a"], "encoding": "utf-16"}, {"a": TSV.decode().encode("utf-16")}),
    "moses": ("moses", {"en": ["a"], "zh": ["b"], "image": ["c"]}, {"a": b"a\nb\n", "b": b"c\nd\n", "c": b"1\n2\n"}),
    "jsonl": ("jsonl", {"files": ["a"]}, {"a": b'{"en":["a","b"],"zh":["c","d"]}\n{"en":"x","zh":"\\ud800"}\n'}),
    "csv": ("csv", {"files": ["a"], "split_lines": True}, {"a": b'en,zh\n"a\nb","c\nd"\n'}),
    "parquet": ("parquet", {"files": ["a"]}, {"a": _parquet()}),
    "xlsx": (
        "xlsx",
        {"files": ["a"], "header": False, "en": 1, "zh": 2},
        {"a": workbook(S=[["one", "一"], ["two", 2]])},
    ),
    "squad": ("squad", {"en": "a", "zh": "b"}, {"a": SQUAD, "b": SQUAD}),
    "poems": ("poems", {"files": ["a"]}, {"a": POEM}),
    "prompt_list": ("prompt_list", {"en": "a", "zh": "b"}, {"a": LIST, "b": LIST}),
    "tags": ("tags", {"files": ["a"]}, {"a": b"- name: x\n  groups:\n    - tags:\n        a_b: c\n"}),
    "mapping": ("mapping", {"files": ["a"]}, {"a": b'{"a":"b","c":1}'}),
    "json": ("json", {"files": ["a"]}, {"a": b'{"d":[{"en":"a","zh":["b"]},{"en":["x","y"],"zh":["c","d"]}]}'}),
    "yaml": ("mapping", {"files": ["a.yaml"]}, {"a.yaml": b"k:\n  a: b\n  c: [d, e]\n&x f: *x\n"}),
    "cells": (
        "tsv",
        {
            "files": ["a"],
            "split": "|",
            "underscores": "spaces",
            "weights": "strip",
            "part_of_speech": "strip",
            "sentences": "split",
        },
        {"a": "a_b|((c))\tn. 一|二\n(x:1.1)\t三|四\n".encode()},
    ),
    "csv numbers": ("csv", {"files": ["a"], "header": False, "en": 1, "zh": 2}, {"a": b'a,"b\nc"\nd,e\n'}),
    "markdown": ("markdown", {"files": ["a"]}, {"a": b"| a | b |\n|---|:-:|\n| `c` | [d](e) |\n| f |\n"}),
    "interleaved": ("interleaved", {"files": ["a"]}, {"a": "one\n一\n\n二\ntwo\nthree\n".encode()}),
    "wmt_xml": ("wmt_xml", {"files": ["a"]}, {"a": WMT}),
    "po": (
        "by_key",
        {"files": ["a.po"]},
        {"a.po": 'msgid ""\nmsgstr ""\n\n#, fuzzy\nmsgid "a"\nmsgstr "一"\n'.encode()},
    ),
    "xliff": ("by_key", {"files": ["a.xlf"]}, {"a.xlf": XLIFF}),
    "qt": ("by_key", {"files": ["a.ts"]}, {"a.ts": QT}),
    "android": (
        "by_key",
        {"en": ["a.xml"], "zh": ["a.xml"]},
        {"a.xml": b"<r><string name='a'>\\u4e00 b\\'</string></r>"},
    ),
    "strings": ("by_key", {"en": ["a.strings"], "zh": ["a.strings"]}, {"a.strings": b'/* c */ "a" = "b\\"";\n'}),
    "properties": (
        "by_key",
        {"en": ["a.properties"], "zh": ["a.properties"]},
        {"a.properties": b"a.b = c\\\n d\n# e\n"},
    ),
    "locales": (
        "by_key",
        {"en": ["a.json"], "zh": ["b.yml"]},
        {"a.json": b'{"a":{"b":"c"}}', "b.yml": b"zh:\n  a: {b: d}\n"},
    ),
    "lrc": ("subtitles", {"files": ["a"]}, {"a": "[00:01.0]a\n[00:01.0][01:02]一\n".encode()}),
    "tar": ("tsv", {"files": ["a.tgz!a"]}, {"a.tgz": _tar()}),
    "coco": ("captions", {"en": "a.json", "zh": "b"}, {"a.json": COCO, "b": b"1.jpg#0\tB\n"}),
    "cedict": ("cedict", {"files": ["a"]}, {"a": CEDICT}),
    "srt": ("srt", {"files": ["a"]}, {"a": SRT}),
    "subtitles": ("subtitles", {"en": ["a"], "zh": ["b"], "files": ["c"]}, {"a": SRT, "b": SRT, "c": ASS}),
    "tmx": ("tmx", {"files": ["a"]}, {"a": TMX}),
    "sgml": ("sgml", {"en": ["a"], "zh": ["b"]}, {"a": SGML, "b": SGML}),
    "captions": ("captions", {"en": "a", "zh": "b"}, {"a": b"1.jpg#0\tA\n", "b": b"1.jpg#zhm#0\tB\n"}),
    "omw": ("omw", {"en": "a", "zh": "a"}, {"a": OMW}),
    "wikipedia_titles": ("wikipedia_titles", {"langlinks": "a", "page": "a"}, {"a": SQL}),
    "wikipedia_abstracts": (
        "wikipedia_abstracts",
        {"en": "b", "zh": "b", "langlinks": "a", "page": "a"},
        {"a": SQL, "b": ABSTRACTS},
    ),
}
PIECES = [b"\n", b"\t", b"\r", b"\0", b"\xff", b"\xe4\xb8", b'"', b"'", b"{", b"}", b"[", b"]", b"<", b">", b"&", b":",
          b"-->", b"\\", b"00:00:", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 30, b"1e999", b"null",
          b"*a", b"&a ", b"!!python/object:os.system ", b"<!DOCTYPE x>", b"../"]  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few cuts, flips, repeats and insertions of what parsers care about."""
    for _ in range(draw.randint(1, 6)):
        at, end = sorted(draw.randint(0, len(data)) for _ in range(2))
        match draw.randint(0, 4):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:at] + draw.choice(PIECES) + data[at:]
            case 2:
                data = data[:at] + bytes([draw.randint(0, 255)]) + data[at + 1 :]
            case 3:
                data = data[:end] + data[at:end] * draw.randint(1, 3) + data[end:]
            case _:
                data = data[:at]
    return data[:100_000]


@cache
def reader(name: str) -> Source:
    """The reader of a case, whose config is parsed once."""
    kind, fields, _ = CASES[name]
    return source(kind, **fields)


def attacked(folder: Path, name: str, draw: random.Random) -> None:
    """One mutated set of files through its reader: UserError or sound batches, in good time."""
    files = CASES[name][2]
    target = draw.choice(sorted(files))
    for path, data in files.items():
        (folder / path).write_bytes(mutated(data, draw) if path == target else data)
    started = time.monotonic()
    try:
        for batch in reader(name).batches(str(folder)):
            assert batch.schema == RAW
            batch.validate(full=True)
            assert not any(batch.column(n).null_count for n in RAW.names)
            join_continued_lines(batch).validate(full=True)
    except UserError:
        pass
    assert time.monotonic() - started < 5


def run(folder: Path, rounds: int) -> None:
    inside = folder / "inside"
    inside.mkdir()
    for seed in range(rounds):
        name = list(CASES)[seed % len(CASES)]
        try:
            attacked(inside, name, random.Random(seed))
        except BaseException as error:
            raise AssertionError(f"{name}, seed {seed}: {error!r}") from error
    assert [p.name for p in folder.iterdir()] == ["inside"]
    allowed = {file for _, _, files in CASES.values() for file in files}
    assert {p.name for p in inside.iterdir()} <= allowed


@pytest.mark.parametrize("name", CASES)
def test_the_unmutated_files_are_read(tmp_path: Path, name: str) -> None:
    kind, fields, files = CASES[name]
    for path, data in files.items():
        (tmp_path / path).write_bytes(data)
    batches: list[Callable[..., Any]] = list(source(kind, **fields).read(str(tmp_path)))
    assert pa.Table.from_batches(batches).num_rows > 0


def test_some_mutated_files(tmp_path: Path) -> None:
    run(tmp_path, 460)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutated_files(tmp_path: Path) -> None:
    run(tmp_path, 100_000)
