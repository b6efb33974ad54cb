"""Whether the JSON of a file has the shape that its readers rely on: a damaged one is refused where it is read."""

import json
from typing import TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from data.command import UserError

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
