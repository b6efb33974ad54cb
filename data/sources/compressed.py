"""Compressed files and archives as streams of bytes."""

import bz2
import fnmatch
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

import pyarrow as pa

from data.cli import UserError

STREAM_ERRORS = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, OSError)
COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|zst)$")  # ending of a lower-case name
TAR = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2?|txz)$")
UNREAD = re.compile(r"\.(?:7z|rar|z|lz4?|lzma|tar\.lz|br)$")
PACKED = re.compile("|".join([COMPRESSED.pattern, TAR.pattern, UNREAD.pattern, r"\.zip$"]))

DECOMPRESS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda raw: cast(IO[bytes], gzip.open(raw)),  # noqa: SIM115
    ".bz2": lambda raw: cast(IO[bytes], bz2.open(raw)),  # noqa: SIM115
    ".xz": lambda raw: cast(IO[bytes], lzma.open(raw)),  # noqa: SIM115
    ".zst": lambda raw: io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")),
}


@contextmanager
def decompressed(raw: IO[bytes], archive: str, member: str, path: str) -> Iterator[IO[bytes]]:
    """The content of the file `archive`, open as `raw`, or of its `member`; `path` names both in errors."""
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
            with archive.open(chosen) as stream, decompressed(stream, chosen, "", path) as content:
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
                decompressed(stream, chosen, "", path) as text,
            ):
                yield text
    except (*STREAM_ERRORS, KeyError) as error:
        raise UserError(f"{path}: not a readable tar archive ({error}); fetch the file again") from error


def _chosen_member(names: list[str], member: str, path: str) -> str:
    """`member`, the only one that has its pattern, or where it is not named the only one."""
    matches = [member] if member in names else fnmatch.filter(names, member) if member else names
    chosen = matches[0] if len(matches) == 1 else ""
    if chosen not in names:
        raise UserError(f"{path}: the archive has no member {member!r}; write ARCHIVE!MEMBER, one of {names[:8]}")
    return chosen
