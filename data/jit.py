"""Loops compiled by numba, cached on disk, without the interpreter's lock while they run."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])


def njit(function: Loop) -> Loop:
    """`function` compiled at its first call.

    Numba's integers: uint64 with a plain int becomes a float, so hashes wrap every constant in np.uint64. Constants of
    other modules are passed as arguments, because the cache checks the loop's own file alone.
    """
    return cast(Loop, numba.njit(cache=True, nogil=True)(function))
