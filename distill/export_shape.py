"""Whether the JSON of a file has the shape that its readers rely on, so that a damaged one is refused where it is read.

A shape is a TypedDict, or a list, dict, tuple or union of shapes, down to str, int, float and object.
"""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints, is_typeddict

from data.command import UserError

T = TypeVar("T")
_SAID = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
_DEEPEST = 100
"""Levels of nesting, far below those at which Python gives up."""


def shaped(value: object, shape: type[T], where: str, fix: str) -> T:
    """`value`, as JSON gives it, if it has this shape; else UserError with the first key that has not.

    `where` (file, maybe line) heads the error, `fix` ends it. Keys that a TypedDict does not name may hold anything
    that can be written again.
    """
    told = next(_misfits(value, shape, ()), None) or _unwritable(value)
    if told is not None:
        raise UserError(f"{where}: {told}; {fix}")
    return cast(T, value)


def _misfits(value: object, shape: Any, path: tuple[object, ...]) -> Iterator[str]:  # noqa: ANN401  any shape
    kind, parts = get_origin(shape) or shape, get_args(shape)
    if is_typeddict(shape) and isinstance(value, dict):
        for name, inner in get_type_hints(shape).items():
            if name in value:
                yield from _misfits(value[name], inner, (*path, name))
            elif name in shape.__required_keys__:
                yield f"{'.'.join(map(str, (*path, name)))} is missing"
    elif kind is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from _misfits(each, parts[1], (*path, name))
    elif kind is list and isinstance(value, list):
        for place, each in enumerate(value):
            yield from _misfits(each, parts[0], (*path, place))
    elif kind is tuple and isinstance(value, list) and len(value) == len(parts):
        for place, (each, inner) in enumerate(zip(value, parts, strict=True)):
            yield from _misfits(each, inner, (*path, place))
    elif not _fits(value, shape):
        yield f"{'.'.join(map(str, path))} must be {_said(shape)}".lstrip()


def _fits(value: object, shape: Any) -> bool:  # noqa: ANN401  any shape
    if shape is float:  # JSON writes whole ones without a point, some too large for a float
        return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e300)
    return isinstance(value, shape) if shape in (str, int, object) or isinstance(shape, UnionType) else False


def _said(shape: Any) -> str:  # noqa: ANN401  any shape
    if isinstance(shape, UnionType):
        return " or ".join(_SAID.get(each, "null") for each in get_args(shape))
    if get_origin(shape) is tuple:
        return f"a list of {len(get_args(shape))}"
    return _SAID.get(get_origin(shape) or shape, "a mapping")


def _unwritable(value: object) -> str | None:
    """Why `value` could not be written again."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level if isinstance(each, dict | list)
                 for inner in (each.values() if isinstance(each, dict) else each)]  # fmt: skip
    if level:
        return f"is nested more than {_DEEPEST} levels deep"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "has half a sign (a lone surrogate) in a text"
    return None
