"""Fetching from a server that cuts, redirects, refuses, asks to wait, and changes the file between two parts."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.build.config import Download, load_corpus_config
from data.cli import UserError
from data.fetch import RETRIES, fetch, fetch_file
from tests.data.corpora import write_config

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]


@dataclass
class Server:
    """Answers one request after the other as `script` says, then normally; `asked` are the ranges of all requests."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"v1"'
    script: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers.get("Range", ""))
            step = state.script.pop(0) if state.script else None
            if isinstance(step, tuple):  # a status and its headers
                self.send_response(step[0])
                for name, value in step[1].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if callable(step):
                step = step()
            start = 0
            if (asked := self.headers.get("Range")) and self.headers.get("If-Range", state.etag) == state.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if asked and start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:step])  # a number cuts

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/corpus.zip"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield state
        http.shutdown()


def brought(server: Server, folder: Path, **stated: Any) -> tuple[bytes, list[float]]:  # noqa: ANN401
    """The file that was fetched, and the waits before retries."""
    waits = list[float]()
    fetch_file(Download(path="c.zip", url=server.url, **stated), folder / "c.zip", waits.append)
    assert [path.name for path in folder.iterdir()] == ["c.zip"]
    return (folder / "c.zip").read_bytes(), waits


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.script = [1000, 3000]
    assert brought(server, tmp_path, size=len(CONTENT))[0] == CONTENT
    assert server.asked == ["", "bytes=1000-", "bytes=4000-"]


def test_a_later_run_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.script = [5000, *[0] * (RETRIES + 1)]
    with pytest.raises(UserError, match="the connection ends early, 8 times; run the same command again"):
        fetch_file(Download(path="c.zip", url=server.url), tmp_path / "c.zip", lambda _: None)
    assert not (tmp_path / "c.zip").exists()
    server.asked.clear()
    assert brought(server, tmp_path, sha256=hashlib.sha256(CONTENT).hexdigest())[0] == CONTENT
    assert server.asked == ["bytes=5000-"]


@pytest.mark.parametrize("etag", ['"v2"', ""])
def test_a_file_that_changes_between_two_parts_starts_again(etag: str, server: Server, tmp_path: Path) -> None:
    def change() -> None:
        server.content, server.etag = OTHER, etag

    server.script = [1000, change]
    assert brought(server, tmp_path)[0] == OTHER


def test_without_a_validator_only_a_stated_hash_allows_to_go_on(server: Server, tmp_path: Path) -> None:
    server.etag, server.script = "", [1000]
    assert brought(server, tmp_path)[0] == CONTENT
    assert server.asked == ["", ""]
    (tmp_path / "c.zip").unlink()
    server.asked, server.script = [], [1000]
    assert brought(server, tmp_path, sha256=hashlib.sha256(CONTENT).hexdigest())[0] == CONTENT
    assert server.asked == ["", "bytes=1000-"]


def test_statuses(server: Server, tmp_path: Path) -> None:
    server.script = [(302, {"Location": "/elsewhere.zip"}), None]
    assert brought(server, tmp_path)[0] == CONTENT
    (tmp_path / "c.zip").unlink()
    server.script = [(429, {"Retry-After": "7"}), (503, {}), 100, (500, {})]
    content, waits = brought(server, tmp_path)
    assert (content, waits) == (CONTENT, [7.0, 3.0, 0.0, 1.0])
    (tmp_path / "c.zip").unlink()
    for status in (403, 404, 410):
        server.script = [(status, {})]
        with pytest.raises(UserError, match=f"the server answers {status} "):
            brought(server, tmp_path)


def test_the_answer_416_means_complete_or_another_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".c.zip.fetch").write_bytes(CONTENT)
    (tmp_path / ".c.zip.fetch.json").write_text('{"etag": "\\"v1\\""}')
    assert brought(server, tmp_path)[0] == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    (tmp_path / "c.zip").unlink()
    (tmp_path / ".c.zip.fetch").write_bytes(CONTENT * 2)
    (tmp_path / ".c.zip.fetch.json").write_text('{"etag": "\\"v1\\""}')
    assert brought(server, tmp_path)[0] == CONTENT


@pytest.mark.parametrize("stated", [{"size": 3}, {"sha256": "00" * 32}])
def test_content_that_is_not_what_the_config_states_is_removed(
    stated: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not what the config states"):
        brought(server, tmp_path, **stated)
    assert not list(tmp_path.iterdir())


def test_a_config_is_fetched_once(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"name": "a", "format": "tsv", "files": ["raw/absent*.tsv"]}
    by_hand = {"path": "raw/x.zip", "note": "accept the licence at the publisher's page"}
    downloads = [{"url": server.url, "path": "raw/c.zip", "size": len(CONTENT)}, by_hand]
    config = write_config(tmp_path, [source], downloads=downloads)
    assert (fetch(config), fetch(config)) == (1, 0)
    assert (tmp_path / "raw" / "c.zip").read_bytes() == CONTENT
    assert "by hand: raw/x.zip: accept the licence" in capsys.readouterr().out
    (tmp_path / "raw" / "c.zip").write_bytes(b"short")
    with pytest.raises(UserError, match=r"c\.zip: has 5 bytes, not 10,240; remove it"):
        fetch(config)
    with pytest.raises(UserError, match="no downloads in it"):
        fetch(write_config(tmp_path, [source]))
    huge = [{"url": server.url, "path": "raw/d.zip", "size": 1 << 60}]
    with pytest.raises(UserError, match="free; make room"):
        fetch(write_config(tmp_path, [source], downloads=huge))
    with pytest.raises(UserError, match="does not start with https://"):
        fetch(write_config(tmp_path, [source], downloads=[{"url": "file:///etc/passwd", "path": "p"}]))


def test_every_file_of_the_large_config_is_fetched_or_named() -> None:
    path = Path(__file__).parents[2] / "configs" / "corpus" / "skyclip-150m.yaml"
    corpus = load_corpus_config(path)
    files = {name.partition("!")[0] for each in corpus.sources for name in each.paths}
    assert {each.path for each in corpus.config.downloads} == files
    assert all(each.url or each.note for each in corpus.config.downloads)
