"""Opening corpus files: plain, compressed or members of archives, local or by fsspec URL."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
from typing_extensions import Buffer

from data.cli import UserError

SAMPLE_BYTES = 1 << 16  # start of a file by which its encoding is checked
STREAM_ERRORS = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, OSError)
COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|zst)$")  # ending of a lower-case name
TAR = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2?|txz)$")
UNREAD = re.compile(r"\.(?:7z|rar|z|lz4?|lzma|tar\.lz|br)$")


def resolve_path(root: str, path: str) -> str:
    """`path` of a config, relative to the config's folder; a URL stays as it is."""
    if "://" in path or "::" in path:
        return path
    return str(Path(root, path))


def expand_files(root: str, entries: tuple[str, ...]) -> tuple[str, ...]:
    """`entries` of a config with folders and patterns (`parts/*.tsv.gz`) replaced by the files in them, by name."""
    files = list[str]()
    for entry in entries:
        folder = Path(root, entry)
        if "://" in entry or "::" in entry or not (folder.is_dir() or re.search(r"[*?\[]", entry.partition("!")[0])):
            files.append(entry)
            continue
        matches = (
            folder.iterdir()
            if folder.is_dir()
            else Path(root).glob(entry)
            if not folder.is_absolute()
            else (Path(folder.anchor).glob(str(folder.relative_to(folder.anchor))))
        )
        names = sorted(str(path) for path in matches if path.is_file() and not path.name.startswith("."))
        if not names:
            raise UserError(f"{entry}: no file there (looked in {folder}); fix the path in the config")
        files += [name if Path(entry).is_absolute() else str(Path(name).relative_to(root)) for name in names]
    return tuple(files)


@contextmanager
def open_decompressed(root: str, path: str) -> Iterator[IO[bytes]]:
    """The decompressed bytes of `path`; `archive.zip!member` and `archive.tar.gz!member` read one member in place."""
    archive, _, member = path.partition("!")
    target = resolve_path(root, archive)
    with _open_raw(target, path) as raw, _decompressed(raw, archive, member, path) as stream:
        yield stream


bytes_read = Counter[str]()  # of each local file, in this process: how far a reader has come


class _CountedFile(io.FileIO):
    """A file for reading that adds to `bytes_read`."""

    def readinto(self, buffer: Buffer) -> int | None:
        """As FileIO."""
        count = super().readinto(buffer)
        bytes_read[str(self.name)] += count or 0
        return count

    def readall(self) -> bytes:
        """As FileIO."""
        data = super().readall()
        bytes_read[str(self.name)] += len(data)
        return data


@contextmanager
def _open_raw(target: str, path: str) -> Iterator[IO[bytes]]:
    try:
        if "://" not in target and "::" not in target:
            stream: IO[bytes] = io.BufferedReader(_CountedFile(target))  # closed below, after the errors of opening
        else:
            stream = fsspec.open(target, "rb").open()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (looked for {target}); fix the path in the config") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file") from None
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{path}: cannot be opened: {error}; check the path or URL") from error
    with stream:
        yield stream


DECOMPRESS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda raw: cast(IO[bytes], gzip.open(raw)),  # noqa: SIM115
    ".bz2": lambda raw: cast(IO[bytes], bz2.open(raw)),  # noqa: SIM115
    ".xz": lambda raw: cast(IO[bytes], lzma.open(raw)),  # noqa: SIM115
    ".zst": lambda raw: io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")),
}


@contextmanager
def _decompressed(raw: IO[bytes], archive: str, member: str, path: str) -> Iterator[IO[bytes]]:
    name = archive.split("?")[0].lower()
    if UNREAD.search(name):
        raise UserError(f"{path}: archives of this kind are not read; unpack it, or pack it as .zip, .tar.gz or .gz")
    if name.endswith(".zip"):
        with _open_zip_member(raw, member, path) as stream:
            yield stream
    elif TAR.search(name):
        with _open_tar_member(raw, name, member, path) as stream:
            yield stream
    elif member:
        raise UserError(f"{path}: {archive} is no .zip or .tar archive, so it has no member {member!r}")
    elif match := COMPRESSED.search(name):
        with DECOMPRESS[match[0]](raw) as stream:
            yield stream
    else:
        yield raw


@contextmanager
def _open_zip_member(raw: IO[bytes], member: str, path: str) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            chosen = _chosen_member(names, member, path)
            with archive.open(chosen) as stream, _decompressed(stream, chosen, "", path) as content:
                yield content
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable zip ({error}); fetch the file again") from error


@contextmanager
def _open_tar_member(raw: IO[bytes], name: str, member: str, path: str) -> Iterator[IO[bytes]]:
    try:
        seekable = io.BytesIO(DECOMPRESS[".zst"](raw).read()) if name.endswith(".zst") else raw
        with tarfile.open(fileobj=seekable) as archive:
            names = [entry.name for entry in archive if entry.isfile()]
            chosen = _chosen_member(names, member, path)
            with (
                cast(IO[bytes], archive.extractfile(chosen)) as stream,
                _decompressed(stream, chosen, "", path) as text,
            ):
                yield text
    except (*STREAM_ERRORS, KeyError) as error:
        raise UserError(f"{path}: not a readable tar archive ({error}); fetch the file again") from error


def _chosen_member(names: list[str], member: str, path: str) -> str:
    """`member`, or where it is not named the only one."""
    chosen = member or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise UserError(f"{path}: the archive has no member {member!r}; write ARCHIVE!MEMBER, one of {names[:8]}")
    return chosen


def read_bytes(root: str, path: str) -> bytes:
    """The whole decompressed file, for formats that are one document."""
    with open_decompressed(root, path) as stream:
        try:
            return stream.read()
        except STREAM_ERRORS as error:
            raise damaged_file_error(path, error) from error


def read_text(root: str, path: str, encoding: str) -> str:
    """The whole file as text, lines ending with newlines; bytes that are not `encoding` become U+FFFD."""
    content = read_bytes(root, path)
    check_encoding(path, encoding, content)
    text = content.decode(encoding, "replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def damaged_file_error(path: str, error: BaseException) -> UserError:
    """The one line for a stream that ends early or is damaged."""
    return UserError(f"{path}: the file is cut short or damaged ({error}); fetch it again")


def check_encoding(path: str, encoding: str, start: bytes) -> None:
    """UserError where Python does not know `encoding`, or where `start` of the file is text in another one."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UserError(f"{path}: unknown encoding {encoding!r}; use for example utf-8, utf-16 or gb18030") from None
    if not is_utf8(encoding):
        return
    candidates = ["utf-16"] if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else []
    lines = [line for line in start[:SAMPLE_BYTES].split(b"\n")[:-1] if not line.isascii()] if not candidates else []
    if len(lines) >= 10 and 2 * sum(not _decodes(line, "utf-8") for line in lines) > len(lines):
        whole = b"\n".join(lines)
        candidates = [name for name in ("gb18030", "big5") if _decodes(whole, name)][:1]
    if candidates:
        raise UserError(f"{path}: not UTF-8, but it reads as {candidates[0]}; set `encoding: {candidates[0]}`")


def is_utf8(encoding: str) -> bool:
    """Whether `encoding` is a name of UTF-8, whose bytes are taken as they are."""
    return codecs.lookup(encoding).name == "utf-8"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
