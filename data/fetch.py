"""`python -m data.fetch CONFIG.yaml`: bring the files under `downloads` of a corpus config, whole or not at all.

A transfer that was cut goes on where it stopped, also in a later run; a file that changed meanwhile starts again.
"""

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from jsonargparse import ArgumentParser
from tqdm import tqdm

from data.build.config import CorpusConfig, Download, parse_source
from data.cli import UserError, one_line, read_yaml, run_cli
from data.files import file_lock
from data.sources.mtdata import Mtdata, look_up

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
RETRIES = 8  # in a row without a new byte
MAX_WAIT_SECONDS = 300
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
SPARE_BYTES = 1 << 30  # left free on the disk
TRANSFER_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


@dataclass(frozen=True)
class Partial:
    """A transfer in progress: its bytes, and beside them which version of the file they are of."""

    data: Path
    version: Path

    def size(self) -> int:
        """Bytes so far."""
        return self.data.stat().st_size if self.data.exists() else 0

    def etag(self) -> str:
        """The validator that the server gave, or ""."""
        try:
            return str(json.loads(self.version.read_text(encoding="utf-8"))["etag"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def discard(self) -> None:
        """Remove both."""
        self.data.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)


def fetch(config: Path, sleep: Callable[[float], None] = time.sleep) -> int:
    """Bring every file of `config` that is not there; returns how many were fetched."""
    root, corpus = config.resolve().parent, read_yaml(config, CorpusConfig, "CONFIG")
    downloads = [*corpus.downloads, *_indexed_downloads(corpus, config)]
    if not downloads:
        raise UserError(f"{config}: no downloads in it; each needs url and path, and should have sha256 or size")
    missing = [each for each in downloads if not _is_complete(each, root / each.path)]
    for each in (each for each in missing if not each.url):
        print(f"by hand: {each.path}: {each.note or 'no url; see the publisher'}")
    missing = [each for each in missing if each.url]
    _check_space(missing, root)
    for each in missing:
        target = root / each.path
        with file_lock(target, f"{target}: another process fetches it; wait for it"):
            fetch_file(each, target, sleep)
        print(f"fetched {each.path}")
    print(f"{len(missing)} files fetched, {len(downloads) - len(missing)} there or by hand")
    return len(missing)


def _indexed_downloads(config: CorpusConfig, path: Path) -> list[Download]:
    """The files of the sources that mtdata's index knows; prints where they are from and what to cite."""
    places = [(n, entry) for n, entry in enumerate(config.sources) if entry.get("format") == "mtdata"]
    parsed = [parse_source(entry, f"{path}: sources.{n}") for n, entry in places]
    corpora = [source for source in parsed if isinstance(source, Mtdata)]
    entries = look_up(corpora, path.resolve().parent) if corpora else {}
    downloads = list[Download]()
    for corpus in corpora:
        files = corpus.downloads(entries[corpus.id])
        downloads += [Download(path=target, url=url) for target, url in files.items()]
        print(f"{corpus.id}: {', '.join(files.values())}; licence as the config says: {corpus.license}")
        for citation in entries[corpus.id].citations:
            print(f"  cite {' '.join(citation.split())}")
    return downloads


def _is_complete(download: Download, target: Path) -> bool:
    if not target.exists():
        return False
    size = target.stat().st_size
    if download.size and size != download.size:
        raise UserError(f"{target}: has {size:,} bytes, not {download.size:,}; remove it and fetch it again")
    return True


def _check_space(downloads: list[Download], root: Path) -> None:
    """UserError before the first byte where the sizes that the config states do not fit on their disks."""
    needed: dict[int, tuple[Path, int]] = {}
    for download in downloads:
        folder = (root / download.path).parent
        folder.mkdir(parents=True, exist_ok=True)
        device = folder.stat().st_dev
        needed[device] = (folder, needed.get(device, (folder, 0))[1] + download.size)
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        if size + SPARE_BYTES > free:
            raise UserError(f"{folder}: {size:,} bytes to fetch and {free:,} free; make room or fetch fewer files")


def fetch_file(download: Download, target: Path, sleep: Callable[[float], None] = time.sleep) -> None:
    """Bring one file: bytes go to a hidden file beside `target`, which takes its name when size and hash are right."""
    partial = Partial(target.with_name(f".{target.name}.fetch"), target.with_name(f".{target.name}.fetch.json"))
    failures = 0
    while True:
        before = partial.size()
        error: Exception | None = None
        try:
            if _transfer(download, partial) == partial.size():
                break
        except urllib.error.HTTPError as answer:
            if answer.code not in RETRIED_STATUS:
                raise UserError(
                    f"{download.url}: the server answers {answer.code} {answer.reason}; fix the url"
                ) from None
            error = answer
        except TRANSFER_ERRORS as cut:
            error = cut
        failures = 0 if partial.size() > before else failures + 1
        if failures > RETRIES:
            reason = one_line(error) if error else "the connection ends early"
            raise UserError(f"{download.url}: {reason}, {RETRIES} times; run the same command again to go on")
        sleep(_wait_seconds(error, failures))
    _check_content(download, partial)
    partial.data.replace(target)
    partial.discard()


def _transfer(download: Download, partial: Partial) -> int:
    """Append what the server sends to `partial`; returns the size of the whole file, or -1 to begin again."""
    start, etag = partial.size(), partial.etag()
    headers = {"User-Agent": "yuqiao-data-fetch", "Accept-Encoding": "identity"}
    if start and (etag or download.sha256):  # without either, the file could have changed unseen
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": etag} if etag else {})
    request = urllib.request.Request(download.url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after `start`: complete, or another file now
            if (error.headers.get("Content-Range") or "").rpartition("/")[2] == str(start):
                return start
            partial.discard()
            return -1
        raise
    with response:
        resumed = response.status == 206 and _range_start(response.headers) == start
        if response.status == 206 and not resumed:
            partial.discard()
            return -1
        etag, length = response.headers.get("ETag", ""), response.headers.get("Content-Length")
        if etag.startswith("W/") or not etag:  # a weak one may stand for other bytes
            etag = response.headers.get("Last-Modified", "")
        if not resumed:  # first the old bytes go, then their validator: a kill in between must not join two versions
            partial.data.unlink(missing_ok=True)
        partial.version.write_text(json.dumps({"etag": etag}), encoding="utf-8")
        total = (start if resumed else 0) + int(length) if length else None
        with (
            partial.data.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=download.url.rpartition("/")[2][:40], total=total, initial=file.tell(), unit="B", unit_scale=True
            ) as bar,
        ):
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        return partial.size() if total is None else total


def _range_start(headers: Message) -> int:
    """First byte of a partial answer, as in "bytes 500-999/1000"; -1 where the server does not say it."""
    first = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _wait_seconds(error: Exception | None, failures: int) -> float:
    """What the server asks to wait for, or twice as long after each failure."""
    after = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return min(float(after) if after.isdecimal() else 2.0**failures - 1, MAX_WAIT_SECONDS)


def _check_content(download: Download, partial: Partial) -> None:
    """UserError, and the bytes removed, where size or SHA-256 is not that of the config."""
    size = partial.size()
    with partial.data.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest() if download.sha256 else ""
    if (download.size and size != download.size) or sha256 != download.sha256.lower():
        partial.discard()
        found = f"SHA-256 {sha256}" if sha256 != download.sha256.lower() else f"{size:,} bytes"
        raise UserError(f"{download.url}: the file has {found}, not what the config states; the publisher changed it?")


def main() -> None:
    """Read the command line and fetch."""
    parser = ArgumentParser(prog="data.fetch", description=__doc__, exit_on_error=False)
    parser.add_argument("config", type=Path, help="corpus config (YAML) with `downloads`")
    fetch(parser.parse_args().config)


if __name__ == "__main__":
    run_cli(main)
