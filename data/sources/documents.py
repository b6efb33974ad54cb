"""Formats that are one JSON or YAML document a file: SQuAD pairs, poems, prompt lists, tag groups, mappings."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import yaml

from data.cli import UserError
from data.sources.base import Json, Pair, PairSource, TwoFiles, pair_batches
from data.sources.delimited import verse_pairs
from data.sources.io import read_text

YAML_NAME = re.compile(r"\.ya?ml(?:\.\w+)?$", re.IGNORECASE)
Entry = tuple[str, int, Json]  # key, number, value


def load_json(root: str, path: str, encoding: str = "utf-8") -> Json:
    """Parse a JSON document; UserError names the line where it breaks."""
    try:
        return json.loads(read_text(root, path, encoding))
    except json.JSONDecodeError as error:
        hint = "one JSON value a line: use `format: jsonl`" if error.msg == "Extra data" else "fetch the file again"
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg}); {hint}") from error
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply; is this the right file?") from error


def compose_yaml(root: str, path: str, encoding: str) -> Json:
    """The node tree of a YAML document, which knows its lines."""
    try:
        return yaml.compose(read_text(root, path, encoding), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({error}); fetch the file again") from error
    except RecursionError as error:
        raise UserError(f"{path}: YAML nested too deeply; is this the right file?") from error


@dataclass(frozen=True, kw_only=True)
class TwoDocuments(TwoFiles):
    """An English document and its Chinese twin, aligned by position."""

    def _aligned(self, en: list[Json], zh: list[Json], entries: str) -> list[tuple[int, Json, Json]]:
        """(number, English entry, Chinese entry); UserError where they are not equally many."""
        if len(en) != len(zh):
            raise UserError(
                f"{self.en} has {len(en)} {entries}, {self.zh} has {len(zh)}; they pair by position, fetch them again"
            )
        return [(number, a, b) for number, (a, b) in enumerate(zip(en, zh, strict=True), 1)]


@dataclass(frozen=True, kw_only=True)
class Squad(TwoDocuments):
    """XQuAD: contexts and questions of two SQuAD documents; `line` counts the paragraphs."""

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield context (sub 0) and question pairs."""
        en, zh = (
            [paragraph for article in _list_at(load_json(root, path, self.encoding), "data", path)
             for paragraph in _list_at(article, "paragraphs", path)]
            for path in self.paths
        )  # fmt: skip
        yield from pair_batches(self._pairs(self._aligned(en, zh, "paragraphs")), 0)

    def _pairs(self, paragraphs: list[tuple[int, Json, Json]]) -> Iterator[Pair]:
        for number, a, b in paragraphs:
            yield Pair(_string(a, "context"), _string(b, "context"), number)
            en_questions, zh_questions = _list_at(a, "qas"), _list_at(b, "qas")
            if len(en_questions) != len(zh_questions):
                yield Pair(str(len(en_questions)), str(len(zh_questions)), number, sub=1, fault="unaligned_lines")
                continue
            for sub, (en_question, zh_question) in enumerate(zip(en_questions, zh_questions, strict=True), 1):
                yield Pair(_string(en_question, "question"), _string(zh_question, "question"), number, sub=sub)


@dataclass(frozen=True, kw_only=True)
class PromptList(TwoDocuments):
    """img-prompt: two JSON lists aligned by position; `key` holds the text."""

    key: str = "langName"
    same: str = "displayName"  # must agree between the two, else the row is out of step

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair an entry; `line` counts entries."""
        en, zh = (_top_list(load_json(root, path, self.encoding), path) for path in self.paths)
        yield from pair_batches((self._pair(*entry) for entry in self._aligned(en, zh, "entries")), 0)

    def _pair(self, number: int, a: Json, b: Json) -> Pair:
        in_step = not self.same or _string(a, self.same) == _string(b, self.same)
        return Pair(_string(a, self.key), _string(b, self.key), number, fault="" if in_step else "unaligned_lines")


@dataclass(frozen=True, kw_only=True)
class Poems(PairSource):
    """A JSON list of poems whose two sides are lists of lines (or one string) under dotted keys."""

    en: str = "English.content"
    zh: str = "Chinese.content"

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield whole poems (sub 0) and their lines; `line` counts poems."""
        for number, poem in enumerate(_top_list(load_json(root, path, self.encoding), path), 1):
            yield from verse_pairs(_verses(poem, self.en), _verses(poem, self.zh), number)


@dataclass(frozen=True, kw_only=True)
class Tags(PairSource):
    """prompt-all-in-one: YAML groups whose `tags` map an English tag to its Chinese name."""

    underscores: Literal["keep", "spaces"] = "spaces"
    weights: Literal["keep", "strip"] = "strip"

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a tag; `line` is the tag's line."""
        stack = [compose_yaml(root, path, self.encoding)]
        while stack:
            node = stack.pop()
            if isinstance(node, yaml.SequenceNode):
                stack.extend(reversed(node.value))
            elif isinstance(node, yaml.MappingNode):
                for key, value in reversed(node.value):
                    if key.value == "tags" and isinstance(value, yaml.MappingNode):
                        yield from (_tag(tag, name) for tag, name in value.value)
                    elif not isinstance(value, yaml.ScalarNode):
                        stack.append(value)


def _tag(tag: Json, name: Json) -> Pair:
    line = tag.start_mark.line + 1
    if not isinstance(tag, yaml.ScalarNode) or not isinstance(name, yaml.ScalarNode):
        return Pair("", "", line, fault="columns")
    return Pair(tag.value, name.value, line)


@dataclass(frozen=True, kw_only=True)
class Mapping(PairSource):
    """A JSON or YAML mapping from English to Chinese (`flipped`: from Chinese), also below categories, as prompt
    plug-ins ship; a list as value is several names of the key."""  # fmt: skip

    flipped: bool = False

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a name; `line` is the line of a YAML key, or counts the entries of JSON."""
        if YAML_NAME.search(path):
            entries = _yaml_entries(compose_yaml(root, path, self.encoding))
        else:
            document = load_json(root, path, self.encoding)
            if not isinstance(document, dict):
                raise UserError(f"{path}: the top of the document is not a mapping; is this the right file?")
            entries = ((keys[-1], n, value) for n, (keys, value) in enumerate(json_leaves(document, False), 1))
        for key, number, value in entries:
            names = value if isinstance(value, list) else [value]
            if not names or not all(isinstance(name, str) for name in names):
                yield Pair(key, "", number, fault="keys")
                continue
            for sub, name in enumerate(names, 1):
                en, zh = (name, key) if self.flipped else (key, name)
                yield Pair(en, zh, number, sub=sub if len(names) > 1 else 0)


def json_leaves(document: Json, into_lists: bool) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Values that are no mapping (nor, with `into_lists`, a list) with the keys that lead to them, in file order."""
    stack: list[tuple[tuple[str, ...], Json]] = [((), document)]
    while stack:
        keys, node = stack.pop()
        if isinstance(node, dict) or (into_lists and isinstance(node, list)):
            entries = list(node.items() if isinstance(node, dict) else enumerate(node))
            stack += [((*keys, str(name)), value) for name, value in reversed(entries)]
        else:
            yield keys, node


def _yaml_entries(top: Json) -> Iterator[Entry]:
    """The same of a YAML node tree; a node that aliases repeat is read once."""
    stack, seen = [top], set[int]()
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            key, value = node
            if isinstance(value, yaml.MappingNode):
                stack.append(value)
            elif isinstance(key, yaml.ScalarNode):
                nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
                names = [name.value if isinstance(name, yaml.ScalarNode) else None for name in nodes]
                yield key.value, key.start_mark.line + 1, names
        elif isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) and id(node) not in seen:
            seen.add(id(node))
            stack.extend(reversed(node.value))


def _top_list(document: Json, path: str) -> list[Json]:
    if not isinstance(document, list):
        raise UserError(f"{path}: the top of the document is not a list; is this the right file?")
    return document


def _list_at(at: Json, key: str, path: str = "") -> list[Json]:
    """The list under `key`; where it is absent, UserError if `path` is given, else an empty one."""
    if isinstance(at, dict) and isinstance(at.get(key), list):
        return list(at[key])
    if path:
        raise UserError(f"{path}: no list {key!r} where SQuAD has one; is this the right file?")
    return []


def _string(at: Json, key: str) -> str:
    return at[key] if isinstance(at, dict) and isinstance(at.get(key), str) else ""


def _verses(at: Json, dotted: str) -> list[str]:
    for key in dotted.split("."):
        at = at.get(key) if isinstance(at, dict) else None
    if isinstance(at, str):
        return at.splitlines()
    return [v for v in at if isinstance(v, str)] if isinstance(at, list) else []
