"""JSON records, a line each or in one document: keys may be dotted, values strings or lists that pair up."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pyarrow as pa

from data.cli import UserError
from data.sources.base import Json, LineSource, Pair, PairSource, pair_batches, raw_batch
from data.sources.documents import load_json
from data.sources.io import TEXT, Lines, Span, read_lines

VERSE_NUMBER = re.compile(
    r"^(?:[\u4e00-\u9fff]{0,4}|[A-Z][A-Za-z ]{0,20})\s?[（(](?:[一二三四五六七八九十]+|[IVXL]+)[）)]\s*"
)
GLUED = re.compile(r"(?<=[a-z,.;:?!”])(?=[A-Z“])")


@dataclass(frozen=True, kw_only=True)
class Jsonl(LineSource):
    """One object a line; a list on both sides pairs by position."""

    en: str = "en"
    zh: str = "zh"
    image: str = ""
    glued: bool = False  # PoetMT: lines joined without a space ("land.How many"), numbered poems, notes at the end

    def read_file(self, root: str, path: str, index: int, span: Span | None = None) -> Iterator[pa.RecordBatch]:
        """Yield a batch a block of lines: as columns where all are objects of strings, else pair by pair."""
        num_lines, num_records, present_keys = 0, 0, set[str]()
        for lines in read_lines(root, path, self.encoding, span):
            records = [parse_json_line(line) for line in lines.text.to_pylist()]
            num_lines += len(records)
            columns = None if self.glued else string_columns(records, self._keys)
            if columns is not None:
                num_records, present_keys = num_records + len(records), set(self._keys)
                image = columns[2] if self.image else None
                yield raw_batch(columns[0], columns[1], index, lines.numbers(), image=image)
                continue
            num_records += sum(isinstance(record, dict) for record in records)
            present_keys |= {key for key in self._keys for record in records if value_at(record, key) is not None}
            yield from pair_batches(self._pairs(lines, records), index)
        if span:
            return
        if num_lines and not num_records:
            raise UserError(f"{path}: no line is a JSON object; one JSON document has format json, mapping or poems")
        absent = [key for key in self._keys if key not in present_keys]
        if num_records and absent:
            raise UserError(
                f"{path}: no line has the key {absent[0]!r}; fix `en`, `zh` or `image` of source {self.name}"
            )

    @property
    def _keys(self) -> list[str]:
        return [key for key in (self.en, self.zh, self.image) if key]

    def _pairs(self, lines: Lines, records: list[Json]) -> Iterator[Pair]:
        for number, (line, record) in enumerate(zip(lines.text.to_pylist(), records, strict=True), lines.first):
            if record is not None:
                yield from self._record(record, number)
            elif line.strip():
                yield Pair(line, "", number, fault="json")
            else:
                yield Pair("", "", number, fault="blank")

    def _record(self, record: Json, number: int) -> Iterator[Pair]:
        if not self.glued:
            return record_pairs(record, self.en, self.zh, self.image, number)
        en = [GLUED.sub(" ", VERSE_NUMBER.sub("", text)) for text in string_list(value_at(record, self.en))]
        zh = [VERSE_NUMBER.sub("", text.split("注释：")[0]) for text in string_list(value_at(record, self.zh))]
        return record_pairs({"en": en, "zh": zh, "image": value_at(record, self.image)}, "en", "zh", "image", number)


@dataclass(frozen=True, kw_only=True)
class JsonRecords(PairSource):
    """A JSON array of objects, or an object that has the array under the dotted key `records`."""

    en: str = "en"
    zh: str = "zh"
    image: str = ""
    records: str = ""  # empty: the top of the document, or its only list

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield the pairs of every object; `line` counts objects."""
        document = load_json(root, path, self.encoding)
        if self.records:
            document = value_at(document, self.records)
        elif isinstance(document, dict):
            lists = [value for value in document.values() if isinstance(value, list) and value]
            document = lists[0] if len(lists) == 1 else document
        if not isinstance(document, list):
            keys = f"its keys are {', '.join(document)[:200]}" if isinstance(document, dict) else "it has no keys"
            raise UserError(f"{path}: no list of objects; name its key in `records` of source {self.name}, {keys}")
        present = {key for key in (self.en, self.zh) for record in document if value_at(record, key) is not None}
        if document and (absent := {self.en, self.zh} - present):
            raise UserError(f"{path}: no object has the key {min(absent)!r}; fix `en` or `zh` of source {self.name}")
        for number, record in enumerate(document, 1):
            yield from record_pairs(record, self.en, self.zh, self.image, number)


def record_pairs(record: Json, en: str, zh: str, image: str, number: int) -> Iterator[Pair]:
    """The pairs of one record: strings, or lists that pair by position; a record without them has a fault."""
    left, right = string_list(value_at(record, en)), string_list(value_at(record, zh))
    name = "".join(string_list(value_at(record, image))[:1]) if image else ""
    if len(left) != len(right):
        yield Pair("\n".join(left), "\n".join(right), number, image=name, fault="unaligned_lines")
    elif not left:
        yield Pair("", "", number, image=name, fault="keys")
    else:
        for sub, (a, b) in enumerate(zip(left, right, strict=True), 1):
            yield Pair(a, b, number, sub=sub if len(left) > 1 else 0, image=name)


def string_columns(records: list[Json], keys: list[str]) -> list[pa.Array] | None:
    """The columns of `keys`; None unless every record is an object with a string under each."""
    try:
        columns = [[record[key] for record in records] for key in keys]
    except (KeyError, TypeError, IndexError):
        return None
    if not all(set(map(type, column)) <= {str} for column in columns):
        return None
    try:
        return [pa.array(column, TEXT) for column in columns]
    except UnicodeEncodeError:  # a lone surrogate
        return None


def parse_json_line(line: str) -> Json:
    """The JSON value of a line, or None where it is not JSON."""
    try:
        return orjson.loads(line)
    except ValueError:
        pass
    try:
        return json.loads(line)  # takes a little more: lone surrogates, NaN
    except (ValueError, RecursionError):
        return None


def value_at(record: Json, dotted: str) -> Json:
    """The value under a dotted key, or None."""
    for key in dotted.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return record


def string_list(value: Json) -> list[str]:
    """A string, a number or a list of strings as a list of strings."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return [str(value)]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
