"""Files and folders that are whole or absent, locks, hashes, and JSON that is checked where it is read."""

import ctypes
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import psutil

from data.cli import UserError, one_line

T = TypeVar("T")
_AT_FDCWD = -100  # paths are relative to the working directory
_RENAME_EXCHANGE = 2


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """The path of a temporary file to write; renamed to `path` when the block ends, removed when it raises."""
    partial = partial_path(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The path of a folder to make and fill; it replaces `path` when the block ends, and is removed when it raises.

    Its files can be read as the umask allows: writers that rename a temporary file, as safetensors', leave mode 600.
    Where `path` is a link, it keeps pointing at the same place, which gets the new content.
    """
    target = path.resolve()
    partial = partial_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    restore_folder(target)
    try:
        yield partial
        os.umask(mask := os.umask(0))  # reading it is setting it
        for file in (file for file in partial.rglob("*") if file.is_file() and not file.is_symlink()):
            file.chmod(0o666 & ~mask)
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """The temporary name, by machine and process; hidden, without the suffix: `*.parquet` finds whole files alone."""
    return path.with_name(f".{path.name}.partial-{socket.gethostname()}-{os.getpid()}")


def remove_abandoned(folder: Path) -> None:
    """Delete temporary files and folders in `folder` whose writers were killed on this machine."""
    for partial in folder.glob("*.partial-*"):
        host, _, process = partial.name.rpartition(".partial-")[2].rpartition("-")
        if host not in ("", socket.gethostname()) or not process.isdigit() or psutil.pid_exists(int(process)):
            continue
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def replace_folder(new: Path, old: Path) -> None:
    """Rename `new` to `old` on the same file system and delete what was at `old`; one of the two is there if killed."""
    if not old.exists():
        new.rename(old)
    elif _exchange(new, old):
        shutil.rmtree(new)
    else:  # no atomic exchange on this file system: `restore_folder` undoes a kill between the two renames
        aside = _aside(old)
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
        new.rename(old)
        shutil.rmtree(aside)


def restore_folder(path: Path) -> None:
    """Undo a `replace_folder` that was killed between its two renames."""
    aside = _aside(path)
    if aside.exists() and not path.exists():
        aside.rename(path)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _exchange(new: Path, old: Path) -> bool:
    """Swap two folders in one step, as Linux can; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # macOS has no renameat2, Windows no name for the C library
        return False
    new_bytes, old_bytes = bytes(new.absolute()), bytes(old.absolute())
    return bool(renameat2(_AT_FDCWD, new_bytes, _AT_FDCWD, old_bytes, _RENAME_EXCHANGE) == 0)


def _lock(file: IO[str], wait: bool) -> None:
    """Lock `file` until it is closed; unless this is to `wait`, BlockingIOError where another process has it."""
    if sys.platform == "win32":
        import msvcrt

        while True:  # LK_LOCK waits for ten seconds only
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                if not wait:
                    raise BlockingIOError from error
                time.sleep(1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def file_lock(folder: Path, message: str | None = None) -> Iterator[None]:
    """Hold `folder` for this process; where another has it, UserError(message), or wait if there is no message.

    A killed process frees its lock. The lock file lies beside the folder, which stays as it is, and is not deleted: a
    process that waits for its turn may have it open.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            _lock(file, wait=message is None)
        except BlockingIOError as error:
            raise UserError(message) from error
        except OSError as error:
            reason = f"its file system has no locks ({error.strerror})"
            print(f"warning: {folder} is not locked, {reason}; let nothing else write there", file=sys.stderr)
        yield


def check_out(option: str, out: Path, own: Collection[str] | Callable[[Path], bool]) -> None:
    """Raise UserError unless the folder `out` can be written: absent, empty, or a former output, which is replaced.

    `own` holds the names that a former output may have in it, or is a predicate on the folder.
    """
    if out.is_dir() and any(out.iterdir()):
        is_own = own(out) if callable(own) else {path.name for path in out.iterdir()} <= set(own)
    else:
        is_own = not out.exists() or out.is_dir()
    if not is_own:
        raise UserError(f"{option} {out}: something else is there; name a new folder")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{option} {out}: no folder {out.parent}; make it first")


def check_writable(out: Path) -> None:
    """Raise UserError where the file `out` cannot be written, before its content is computed."""
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; name a file, such as {out / 'result.json'}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: no folder {out.parent}; make it first")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """File -> SHA-256; paths that are no files are left out."""
    return {str(path): sha256(path) for path in paths if path.is_file()}


def write_json(value: object, path: Path) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:  # noqa: ANN401  any JSON
    """The content of `path`; UserError where there is no such file or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits; nested without end
        raise UserError(f"{path}: not JSON in UTF-8 ({one_line(error)}); is the file cut short?") from error


def validated(value: object, schema: type[T], where: str, fix: str) -> T:
    """`value`, as JSON gives it, if it has the shape of `schema` (a TypedDict and its parts); else UserError.

    `where` (file, maybe line) begins the error, which names the first key that is wrong; `fix` ends it. Keys that a
    TypedDict does not name may hold any JSON.
    """
    from pydantic import TypeAdapter, ValidationError  # eval.golden runs beside old releases, without pydantic

    try:
        TypeAdapter(schema).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        raise UserError(f"{where}: {key}{first['msg']}; {fix}") from error
    return cast(T, value)


def check_safetensors(source: str, option: str) -> None:
    """Raise UserError where `source` is a folder without safetensors, a file, or a path that does not exist."""
    folder = Path(source).expanduser()
    if folder.is_file():
        raise UserError(f"{option} {source}: a file; name the folder of a model in safetensors, never a pickle")
    if not folder.exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise UserError(f"{option} {source}: no such folder")
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"{option} {source}: no config.json; it is not a folder of a transformers model")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind)]
        problem = f"only {pickles[0]}, a pickle, which may run code" if pickles else "no weights"
        raise UserError(f"{option} {source}: {problem}; save it as model.safetensors")
