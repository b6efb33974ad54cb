"""Formats that are one JSON or YAML document a file: SQuAD pairs, poems, prompt lists, tag groups."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from data.cli import UserError
from data.sources.base import Pair, PairSource, TwoFiles, pair_batches
from data.sources.delimited import verse_pairs
from data.sources.io import read_text

STACKED = re.compile(r"\({2,}|\){2,}|\{+|\}+")
WEIGHT = re.compile(r"\(?([^():]+):\d+(?:\.\d+)?\)?")
Json = Any  # a parsed document of unknown shape


def load_json(root: str, path: str, encoding: str = "utf-8") -> Json:
    """Parse a JSON document; a UserError names the line where it breaks."""
    try:
        return json.loads(read_text(root, path, encoding))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg}); fetch the file again") from error
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply; is this the right file?") from error


@dataclass(frozen=True, kw_only=True)
class TwoDocuments(TwoFiles):
    """An English document and its Chinese twin, aligned by position."""

    def _documents(self, root: str) -> tuple[Json, Json]:
        return load_json(root, self.en, self.encoding), load_json(root, self.zh, self.encoding)


@dataclass(frozen=True, kw_only=True)
class Squad(TwoDocuments):
    """XQuAD: contexts and questions of two SQuAD documents; `line` counts the paragraphs."""

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield context (sub 0) and question pairs."""
        en, zh = (
            [p for article in _required_list(d, "data", path) for p in _required_list(article, "paragraphs", path)]
            for d, path in zip(self._documents(root), self.paths, strict=True)
        )
        _check_same_length(len(en), len(zh), self, "paragraphs")
        yield from pair_batches(self._pairs(en, zh), 0)

    def _pairs(self, en: list[Json], zh: list[Json]) -> Iterator[Pair]:
        for number, (a, b) in enumerate(zip(en, zh, strict=True), 1):
            yield Pair(_string(a, "context"), _string(b, "context"), number)
            en_questions, zh_questions = _optional_list(a, "qas"), _optional_list(b, "qas")
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
        en, zh = self._documents(root)
        if not isinstance(en, list) or not isinstance(zh, list):
            raise UserError(f"{self.en}: the top of the document is not a list; is this the right file?")
        _check_same_length(len(en), len(zh), self, "entries")
        yield from pair_batches((self._pair(a, b, n) for n, (a, b) in enumerate(zip(en, zh, strict=True), 1)), 0)

    def _pair(self, a: Json, b: Json, number: int) -> Pair:
        step = "" if not self.same or _string(a, self.same) == _string(b, self.same) else "unaligned_lines"
        return Pair(_string(a, self.key), _string(b, self.key), number, fault=step)


@dataclass(frozen=True, kw_only=True)
class Poems(PairSource):
    """A JSON list of poems whose two sides are lists of lines (or one string) under dotted keys."""

    en: str = "English.content"
    zh: str = "Chinese.content"

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield whole poems (sub 0) and their lines; `line` counts poems."""
        poems = load_json(root, path, self.encoding)
        if not isinstance(poems, list):
            raise UserError(f"{path}: the top of the document is not a list of poems; is this the right file?")
        for number, poem in enumerate(poems, 1):
            yield from verse_pairs(_verses(poem, self.en), _verses(poem, self.zh), number)


@dataclass(frozen=True, kw_only=True)
class Tags(PairSource):
    """prompt-all-in-one: YAML groups whose `tags` map an English tag to its Chinese name."""

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a tag, underscores as spaces; `line` is the tag's line."""
        try:
            node = yaml.compose(read_text(root, path, self.encoding), Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not YAML ({error}); fetch the file again") from error
        except RecursionError as error:
            raise UserError(f"{path}: YAML nested too deeply; is this the right file?") from error
        yield from _tags(node)


def _tags(node: Json) -> Iterator[Pair]:
    """Every scalar pair under a key `tags`, with its line; the node tree is walked so that lines are known."""
    stack = [node]
    while stack:
        at = stack.pop()
        if isinstance(at, yaml.SequenceNode):
            stack.extend(reversed(at.value))
        elif isinstance(at, yaml.MappingNode):
            for key, value in reversed(at.value):
                if key.value == "tags" and isinstance(value, yaml.MappingNode):
                    for tag, name in value.value:
                        yield _tag(tag, name)
                elif not isinstance(value, yaml.ScalarNode):
                    stack.append(value)


def _tag(tag: Json, name: Json) -> Pair:
    line = tag.start_mark.line + 1
    if not isinstance(tag, yaml.ScalarNode) or not isinstance(name, yaml.ScalarNode):
        return Pair("", "", line, fault="columns")
    return Pair(strip_prompt_weights(tag.value.replace("_", " ")), strip_prompt_weights(name.value), line)


def strip_prompt_weights(prompt: str) -> str:
    """A prompt without the web interface's attention marks: "((ink)), (glow:1.3)" is "ink, glow"."""
    return WEIGHT.sub(r"\1", STACKED.sub("", prompt))


def _required_list(at: Json, key: str, path: str) -> list[Json]:
    if isinstance(at, dict) and isinstance(at.get(key), list):
        return list(at[key])
    raise UserError(f"{path}: no list {key!r} where SQuAD has one; is this the right file?")


def _optional_list(at: Json, key: str) -> list[Json]:
    return at[key] if isinstance(at, dict) and isinstance(at.get(key), list) else []


def _string(at: Json, key: str) -> str:
    return at[key] if isinstance(at, dict) and isinstance(at.get(key), str) else ""


def _verses(at: Json, dotted: str) -> list[str]:
    for key in dotted.split("."):
        at = at.get(key) if isinstance(at, dict) else None
    if isinstance(at, str):
        return at.splitlines()
    return [v for v in at if isinstance(v, str)] if isinstance(at, list) else []


def _check_same_length(en: int, zh: int, source: TwoDocuments, what: str) -> None:
    if en != zh:
        raise UserError(f"{source.en} has {en} {what}, {source.zh} has {zh}; they pair by position, fetch them again")
