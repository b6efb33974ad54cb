"""A short start for a command: what libraries only look for is not loaded, and the collector waits for real work."""

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pyarrow as pa

from data.clean.codepoints import decode


class _Absent:
    """A finder that finds none of `names`."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Refuse the names, leave all others to the finders after this one."""
        if name in self._names:
            raise ModuleNotFoundError(name)


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Packages that are not loaded yet count as not installed."""
    finder = _Absent(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def start() -> None:
    """Set PyArrow and numba going: a second less of processor than they would take by themselves, start to exit.

    At its first array from and to numpy PyArrow loads pandas, to know pandas' arrays; before its first loop numba
    loads scipy, for the BLAS of a matrix product. Nothing here has either; who imports them later gets them as ever.
    """
    gc.set_threshold(50_000)  # numba makes many objects that stay; Python here never makes one a row
    with absent("pandas", "scipy.linalg"):
        pa.array(np.ones(1, bool)).to_numpy(zero_copy_only=False)
        decode(pa.array(["start"]))
    gc.freeze()  # else the interpreter looks for cycles among all of them at its exit
