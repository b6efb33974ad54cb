"""JSON lines: keys may be dotted, values strings or lists of strings that pair up."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.command import UserError
from data.sources.documents import Json
from data.sources.lines import read_lines
from data.sources.source import Pair, Source, batches

NUMBERED = re.compile(
    r"^(?:[\u4e00-\u9fff]{0,4}|[A-Z][A-Za-z ]{0,20})\s?[（(](?:[一二三四五六七八九十]+|[IVXL]+)[）)]\s*"
)
GLUED = re.compile(r"(?<=[a-z,.;:?!”])(?=[A-Z“])")


@dataclass(frozen=True, kw_only=True)
class Jsonl(Source):
    """One object a line; a list on both sides pairs by position."""

    files: tuple[str, ...]
    en: str = "en"
    zh: str = "zh"
    image: str = ""
    glued: bool = False  # PoetMT: lines joined without a space ("land.How many"), numbered poems, notes at the end

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in order."""
        return self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield the pairs of every file."""
        for index, path in enumerate(self.files):
            yield from batches(self._pairs(root, path), index)

    def _pairs(self, root: str, path: str) -> Iterator[Pair]:
        seen, found = 0, set[str]()
        for lines in read_lines(root, path, self.encoding):
            for number, line in enumerate(lines.text.to_pylist(), lines.first):
                if not line.strip():
                    yield Pair("", "", number, fault="blank")
                    continue
                record = parsed(line)
                if record is None:
                    yield Pair(line, "", number, fault="json")
                    continue
                seen += 1
                found |= {key for key in (self.en, self.zh, self.image) if key and at(record, key) is not None}
                yield from self._record(record, number)
        absent = [key for key in (self.en, self.zh, self.image) if key and key not in found]
        if seen and absent:
            raise UserError(f"{path}: no line has the key {absent[0]!r}; mend `en`, `zh` or `image` of {self.name}")

    def _record(self, record: Json, number: int) -> Iterator[Pair]:
        en, zh = strings(at(record, self.en)), strings(at(record, self.zh))
        if self.glued:
            en = [GLUED.sub(" ", NUMBERED.sub("", text)) for text in en]
            zh = [NUMBERED.sub("", text.split("注释：")[0]) for text in zh]
        image = "".join(strings(at(record, self.image))[:1]) if self.image else ""
        if len(en) != len(zh):
            yield Pair("\n".join(en), "\n".join(zh), number, image=image, fault="unaligned_lines")
        elif not en:
            yield Pair("", "", number, image=image, fault="keys")
        for sub, (a, b) in enumerate(zip(en, zh, strict=False), 1):
            if len(en) == len(zh):
                yield Pair(a, b, number, sub=sub if len(en) > 1 else 0, image=image)


def parsed(line: str) -> Json:
    """The JSON value of a line, or None where it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def at(record: Json, dotted: str) -> Json:
    """The value under a dotted key, or None."""
    for key in dotted.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return record


def strings(value: Json) -> list[str]:
    """A string, a number or a list of strings as a list of strings."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return [str(value)]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
