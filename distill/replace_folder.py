"""Put a whole new folder in the place of an old one, so that at any moment one of the two is there."""

import ctypes
import shutil
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


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
