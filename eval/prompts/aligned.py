"""Aligned prompts, Chinese and English: our prompt book, and the published files of UniGenBench, OneIG, LongText-Bench.

One file with both languages on a line (JSON Lines or CSV), or one file a language: joined by id where both have ids
(OneIG-Bench.csv and OneIG-Bench-ZH.csv, text_prompts.jsonl and text_prompts_zh.jsonl), else line by line (XTD10's txt).
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.cli import UserError
from data.sources.benchmark_files import TEXT_KEYS, json_object

ZH_KEYS, EN_KEYS = (
    tuple(key for key, key_language in TEXT_KEYS.items() if key_language == language) for language in ("zh", "en")
)
PLAIN_KEYS = ("prompt",)
ID_KEYS = ("id", "prompt_id", "index")
GROUP_KEYS = ("kind", "category", "length", "prompt_length", "tags")
FORMS = ("mixed", "zh_hant")
"""Other spellings of the Chinese prompt that a line may carry: with English words in it, in traditional characters."""
TRANSLATION = "zh_en"
"""What a line may carry besides: English that somebody made from the Chinese, without having seen `en`."""
SUFFIXES = (".jsonl", ".csv", ".txt")


@dataclass(frozen=True)
class AlignedPrompt:
    """A prompt in both languages, its other forms by name, and its groups: (key, value) such as ("kind", "food")."""

    zh: str
    en: str
    forms: dict[str, str]
    groups: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Record:
    """A line of a file; `where` is its file and line for messages."""

    where: str
    values: dict[str, Any]

    def first(self, keys: tuple[str, ...]) -> str | None:
        """The text under the first of `keys` that the line has."""
        key = next((key for key in keys if key in self.values), None)
        if key is None:
            return None
        text = self.values[key]
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{self.where}: {key} must be a prompt, not {text!r:.40}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{self.where}: {key} holds half a character: {text!r:.40}; write it again") from error
        return text

    def text(self, keys: tuple[str, ...]) -> str:
        """As `first`; UserError where the line has none of `keys`."""
        text = self.first(keys)
        if text is None:
            raise UserError(f"{self.where}: no {keys[0]}; the line has {', '.join(self.values)[:100]}")
        return text

    @property
    def join_key(self) -> tuple[str, str] | None:
        """Category and id: ids start anew in each category of OneIG-Bench."""
        key = next((key for key in ID_KEYS if key in self.values), None)
        return None if key is None else (str(self.values.get("category", "")), str(self.values[key]))


def read_aligned_prompts(data: Path, english: Path | None) -> list[AlignedPrompt]:
    """The prompts of `data`, whose English is in the same file or in `english`; UserError names file and line.

    The English of a plain text `NAME.zh.txt` is `NAME.en.txt` beside it, if no other is given.
    """
    if english is None and data.name.endswith(".zh.txt"):
        english = data.with_name(data.name.removesuffix(".zh.txt") + ".en.txt")
    records = _read_records(data)
    if english is None:
        prompts = [_prompt(record, record.text(ZH_KEYS), record.text(EN_KEYS)) for record in records]
    else:
        pairs = _join(records, _read_records(english), f"{data} and {english}")
        prompts = [_prompt(zh, zh.text((*ZH_KEYS, *PLAIN_KEYS)), en.text((*EN_KEYS, *PLAIN_KEYS))) for zh, en in pairs]
    if len({prompt.en for prompt in prompts}) < 2:
        raise UserError(f"{data}: fewer than two different English prompts, so that none can be mistaken for another")
    return prompts


def _prompt(record: _Record, zh: str, en: str) -> AlignedPrompt:
    groups = []
    for key in GROUP_KEYS:
        value = record.values.get(key)
        values = value if isinstance(value, list) else [value]
        groups += [(key, str(one)) for one in values if one not in (None, "")]
    forms = {form: text for form in (*FORMS, TRANSLATION) if (text := record.first((form,))) is not None}
    groups += [("with a form", form) for form in forms]  # their zh, to compare the forms with
    return AlignedPrompt(zh, en, forms, tuple(groups))


def _join(zh: list[_Record], en: list[_Record], names: str) -> list[tuple[_Record, _Record]]:
    """Lines of one id, those without a counterpart left out; line by line where a file has no ids."""
    by_key = {record.join_key: record for record in en}
    if None not in by_key and len(by_key) == len(en) == len({record.join_key for record in en}):
        joined = [(record, by_key[record.join_key]) for record in zh if record.join_key in by_key]
        if joined:
            return joined
    if len(zh) != len(en):
        raise UserError(f"{names}: {len(zh)} and {len(en)} prompts; both must hold the same prompts, line by line")
    return list(zip(zh, en, strict=True))


def _read_records(path: Path) -> list[_Record]:
    if path.suffix not in SUFFIXES or not path.is_file():
        problem = "no such file" if not path.is_file() else "a file of an unknown kind"
        raise UserError(
            f"{path}: {problem}; give JSON Lines with en and zh, a CSV, or a text file with a prompt a line"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from error
    if path.suffix == ".csv":
        return _csv_records(text, path)
    lines = text.removesuffix("\n").split("\n")
    if path.suffix == ".txt":
        return [_Record(f"{path}:{number}", {"prompt": line.strip()}) for number, line in enumerate(lines, 1)]
    places = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    return [_Record(where, json_object(line, where)) for where, line in places]


def _csv_records(text: str, path: Path) -> list[_Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        return [_Record(f"{path}:{reader.line_num}", {k: v for k, v in row.items() if k}) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); quote prompts that hold commas") from error
