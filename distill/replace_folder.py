"""Put a whole new folder in the place of an old one, so that at any moment one of the two is there."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
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
