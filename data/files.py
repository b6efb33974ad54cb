"""Put a whole new folder in the place of an old one, so that at any moment one of the two is there.

Whether the JSON of a file has the shape that its readers rely on: a damaged one is refused where it is read.

Reading a JSON file that the user named.
"""

import ctypes
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from data.cli import UserError, one_line

_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """The path of a folder to make and fill, not there yet; it becomes `out` when the block ends, or never was."""
    place = out.resolve()  # a link keeps pointing at it
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        replace_folder(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Rename `new` to `old`, on the same file system; what was at `old` is removed."""
    if not old.exists():
        new.rename(old)
    elif _exchange(new, old):
        shutil.rmtree(new)
    else:  # no atomic exchange on this system: the old folder is still whole under its second name
        aside = old.with_name(f".{old.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
        new.rename(old)
        shutil.rmtree(aside)


def _exchange(new: Path, old: Path) -> bool:
    """Swap two folders in one step, as Linux can; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(_HERE, bytes(new.absolute()), _HERE, bytes(old.absolute()), _EXCHANGE) == 0)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """One build at a time in `partial`; the lock dies with the process."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    lock = partial.with_name(partial.name + ".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{lock}: another build is writing this corpus; wait for it, or choose another --out"
            ) from None
        partial.mkdir(exist_ok=True)
        yield
        lock.unlink(missing_ok=True)


T = TypeVar("T")


def shaped(value: object, shape: type[T], where: str, fix: str) -> T:
    """`value`, as JSON gives it, if it has this shape (a TypedDict and what it is made of); else UserError.

    `where` (file, maybe line) heads the error, which names the first key that is wrong; `fix` ends it. Keys that a
    TypedDict does not name may hold anything that can be written again.
    """
    try:
        TypeAdapter(shape).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        raise UserError(f"{where}: {key}{first['msg']}; {fix}") from error
    return cast(T, value)


def read_json(path: Path) -> Any:  # noqa: ANN401  any JSON
    """The content of `path`; UserError where it is not there or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits; nested without end
        raise UserError(f"{path}: not JSON in UTF-8 ({one_line(error)}); is the file cut short?") from error


@contextmanager
def file_lock(folder: Path) -> Iterator[None]:
    """Hold the run's folder for this process alone; the lock goes with the process, however it ends.

    The lock lies beside the folder, so that a folder of something else stays as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"out_dir: another process trains in {folder}; wait for it, stop it, or name another folder"
            ) from error
        yield


def check_writable(out: Path) -> None:
    """Say that a result cannot be written to the file `out` before it is computed."""
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; name a file, such as {out / 'result.json'}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: no folder {out.parent}; make it first")


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write `value` as `write_text` does."""
    write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write `text` so that a reader sees the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
