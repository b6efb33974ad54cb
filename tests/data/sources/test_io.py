"""Files as people have them: archives, folders, patterns, old line ends and other encodings."""

import gzip
import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.build.config import load_corpus_config
from data.cli import UserError
from data.sources.io import read_lines
from tests.data.corpora import PAIRS, built, write_config, write_tsv
from tests.data.sources.test_readers import pairs, read, source

EN_ZH = [("one", "一"), ("two", "二")]


def packed(members: dict[str, bytes], mode: Any) -> bytes:  # noqa: ANN401
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"),
                                              ("tbz2", "w:bz2"), ("tar.xz", "w:xz"), ("tar.zst", "w")])  # fmt: skip
def test_members_of_tar_archives(tmp_path: Path, suffix: str, mode: str) -> None:
    members = {"corpus/a.en": b"one\ntwo\n", "corpus/a.zh": gzip.compress("一\n二\n".encode())}
    data = packed(members | {"corpus/a.zh.gz": members["corpus/a.zh"]}, mode)
    if suffix == "tar.zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    (tmp_path / f"c.{suffix}").write_bytes(data)
    made = source("moses", en=[f"c.{suffix}!corpus/a.en"], zh=[f"c.{suffix}!corpus/a.zh.gz"])
    assert pairs(made, tmp_path) == EN_ZH
    with pytest.raises(UserError, match=r"no member 'x'; write ARCHIVE!MEMBER, one of \['corpus/a.en'"):
        read(source("tsv", files=[f"c.{suffix}!x"]), tmp_path)
    with pytest.raises(UserError, match=r"no member ''"):
        read(source("tsv", files=[f"c.{suffix}"]), tmp_path)


def test_archives_that_are_damaged_or_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(packed({"a": b"one\ttwo\n" * 9999}, "w:gz")[:-40])
    (tmp_path / "a.tar").write_bytes(b"one\ttwo\n")
    for name in ("a.7z", "a.rar", "a.tsv.Z"):
        (tmp_path / name).write_bytes(b"one\ttwo\n")
        with pytest.raises(UserError, match="archives of this kind are not read; unpack it"):
            read(source("tsv", files=[name]), tmp_path)
    for name in ("a.tar.gz", "a.tar"):
        with pytest.raises(UserError, match="not a readable tar archive"):
            read(source("tsv", files=[name]), tmp_path)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"one\ttwo\n"))
    with pytest.raises(UserError, match=r"a\.tsv\.gz is no \.zip or \.tar archive, so it has no member 'x'"):
        read(source("tsv", files=["a.tsv.gz!x"]), tmp_path)


def test_a_compressed_member_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.tsv.gz", gzip.compress("one\t一\n".encode()))
    assert pairs(source("tsv", files=["a.zip!x.tsv.gz"]), tmp_path) == [("one", "一")]
    assert pairs(source("tsv", files=["a.zip"]), tmp_path) == [("one", "一")]


def test_folders_and_patterns_name_their_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for number in (2, 0, 1):
        write_tsv(tmp_path / "parts" / f"p{number}.tsv", [PAIRS[number]])
    (tmp_path / "parts" / ".hidden").write_text("x")
    for entry in ("parts", "parts/p*.tsv", "parts/p[0-2].tsv", str(tmp_path / "parts")):
        config = write_config(tmp_path, [{"name": "a", "format": "tsv", "files": [entry]}], valid_per_domain=0)
        paths = load_corpus_config(config).sources[0].paths
        assert [Path(tmp_path, path).name for path in paths] == ["p0.tsv", "p1.tsv", "p2.tsv"]
        assert Path(paths[0]).is_absolute() == Path(entry).is_absolute()
        assert built(config, overwrite=True)["rows_kept"] == 3
    config = write_config(tmp_path, [{"name": "a", "format": "tsv", "files": ["parts/q*.tsv"]}])
    with pytest.raises(UserError, match=r"parts/q\*\.tsv: no file there"):
        load_corpus_config(config)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("block", [5, 6, 7, 8 << 20])
def test_every_kind_of_line_end(ending: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.sources.io.BLOCK_BYTES", block)
    for text in ("one\t一{0}two\t二{0}", "one\t一{0}two\t二"):
        (tmp_path / "a.tsv").write_text(text.format(ending), encoding="utf-8", newline="")
        if block > 7 or ending != "\r\r\n":  # the first block shows which kind it is
            assert pairs(source("tsv", files=["a.tsv"]), tmp_path) == EN_ZH
    lines = "".join(f'{{"en": "{en}", "zh": "{zh}"}}{ending}' for en, zh in EN_ZH)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8", newline="")
    assert pairs(source("jsonl", files=["a.jsonl"]), tmp_path) == EN_ZH


def test_a_stray_return_in_a_line_shifts_no_pair(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("o\rne\ntwo\n", newline="")
    (lines,) = read_lines(str(tmp_path), "a")
    assert lines.text.to_pylist() == ["o\rne", "two"]


@pytest.mark.parametrize(("encoding", "named"), [("utf-16", "utf-16"), ("gb18030", "gb18030"), ("gbk", "gb18030")])
def test_the_encoding_that_would_decode_is_named(encoding: str, named: str, tmp_path: Path) -> None:
    text = "".join(f"{en} {n}\t第{n}句：{zh}\n" for n, (en, zh) in enumerate(PAIRS * 2))
    (tmp_path / "a.tsv").write_bytes(text.encode(encoding))
    (tmp_path / "a.csv").write_bytes(("en\tzh\n" + text).encode(encoding))
    for made in (source("tsv", files=["a.tsv"]), source("csv", files=["a.csv"], delimiter="\t")):
        with pytest.raises(UserError, match=f"not UTF-8, but it reads as {named}; set `encoding: {named}`"):
            read(made, tmp_path)
    assert len(pairs(source("tsv", files=["a.tsv"], encoding=named), tmp_path)) == 20


def test_some_bad_lines_of_a_utf8_file_are_counted(tmp_path: Path) -> None:
    good = "".join(f"{en}\t{zh}\n" for en, zh in PAIRS).encode()
    (tmp_path / "a.tsv").write_bytes(good + "bad\t坏\n".encode("gb18030") * 9)
    assert len(read(source("tsv", files=["a.tsv"]), tmp_path)) == 19


def test_files_behind_a_url(tmp_path: Path) -> None:
    """As `https://` files are read, from a server on this machine."""
    (tmp_path / "served").mkdir()
    write_tsv(tmp_path / "served" / "pairs.tsv.gz", PAIRS)
    handler = partial(QuietHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/pairs.tsv.gz"
        entry = {"name": "a", "format": "tsv", "files": [url]}
        assert built(write_config(tmp_path, [entry], valid_per_domain=0))["rows_kept"] == len(PAIRS)
        entry = {"name": "a", "format": "tsv", "files": [url.replace("pairs", "gone")]}
        with pytest.raises(UserError, match=r"gone\.tsv\.gz: (no such file|cannot be opened)"):
            built(write_config(tmp_path, [entry]), overwrite=True)
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
