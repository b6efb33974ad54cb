"""CSV with quotes and a header: pairs by column names, cells of several lines aligned or whole."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from data.command import UserError
from data.sources.files import read_text
from data.sources.source import Pair, PairSource


@dataclass(frozen=True, kw_only=True)
class Csv(PairSource):
    """Columns by header name. `split_lines`: cells hold verses, a line each, and pair line by line."""

    en: str = "en"
    zh: str = "zh"
    image: str = ""
    delimiter: str = ","
    split_lines: bool = False

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a record, or those of its verses."""
        for line, cells in records(
            read_text(root, path, self.encoding),
            path,
            self.delimiter,
            [name for name in (self.en, self.zh, self.image) if name],
        ):
            if cells is None:
                yield Pair("", "", line, fault="columns")
            elif self.split_lines:
                yield from verses(cells[0].splitlines(), cells[1].splitlines(), line)
            else:
                yield Pair(cells[0], cells[1], line, image=cells[2] if self.image else "")


def records(text: str, path: str, delimiter: str, names: list[str]) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (line where the record starts, cells of `names`); None where the record has too few cells."""
    text = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(f"{path}:1: not a CSV header ({error}); is this the right file?") from error
    missing = [name for name in names if name not in header]
    if missing:
        raise UserError(f"{path}:1: no column {missing[0]!r}; the header has {', '.join(header)[:200]}")
    places = [header.index(name) for name in names]
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:  # a cell longer than csv's limit
            yield line, None
            continue
        if row:
            yield line, [row[place] for place in places] if len(row) > max(places) else None


def verses(en: list[str], zh: list[str], line: int) -> Iterator[Pair]:
    """A poem as pairs: the whole as sub 0, then each verse, where both sides have equally many lines."""
    en, zh = [v.strip() for v in en if v.strip()], [v.strip() for v in zh if v.strip()]
    yield Pair(" ".join(en), "".join(zh), line)
    if len(en) == len(zh) > 1:
        for number, (a, b) in enumerate(zip(en, zh, strict=True), 1):
            yield Pair(a, b, line, sub=number)
    elif len(en) != len(zh):
        yield Pair("\n".join(en), "\n".join(zh), line, sub=1, fault="unaligned_lines")
