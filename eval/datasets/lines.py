"""Text files of benchmarks, line by line, with the file and line in every complaint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.command import UserError, one_line


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("file:line", text without its line end) for each line that is not blank; bad UTF-8 raises UserError."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from error
            if line.strip():
                yield where, line


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object) for each line of a JSON Lines file; anything but an object raises UserError."""
    for where, line in text_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # no JSON, a number of 5,000 digits; nested without end
            raise UserError(f"{where}: not JSON ({one_line(error)}); is the file cut short?") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: a JSON {type(row).__name__} where an object is needed")
        yield where, row


def captions_of(value: object, where: str, key: str) -> tuple[str, ...]:
    """`value` as captions: one string or a list of strings, none of them empty; anything else raises UserError."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: {key} must be a string or a list of strings")
    if any(not text.strip() for text in texts):
        raise UserError(f"{where}: {key} holds an empty caption; remove it")
    return tuple(texts)
