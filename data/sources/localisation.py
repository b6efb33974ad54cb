"""Localisation files: gettext, XLIFF and Qt with both languages, or two files of one language joined by key."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from xml.etree import ElementTree

import polib  # type: ignore[import-untyped]
import pyarrow as pa
import yaml

from data.cli import UserError
from data.sources.base import Json, Pair, Source, pair_batches, paired_files
from data.sources.compressed import COMPRESSED
from data.sources.documents import compose_yaml, json_leaves, load_json
from data.sources.io import read_text
from data.sources.tmx_sgml import local_name, segment_text

STRINGS_ENTRY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=\s*"((?:[^"\\]|\\.)*)"\s*;|(/\*.*?\*/)', re.DOTALL)
PROPERTY = re.compile(r"^[ \t]*([^#!\s:=][^:=\n]*?)[ \t]*[:=][ \t]*(.*)$", re.MULTILINE)
ESCAPE = re.compile(r"\\(?:[uU]([0-9a-fA-F]{4})|(.))", re.DOTALL)
ESCAPED = {"n": "\n", "t": "\t", "r": ""}
FROM_CHINESE = re.compile(
    r"<(?:file|xliff|TS)\b[^<>]*\b(?:source-language|srcLang|sourcelanguage)\s*=\s*[\"'](?:zh|cmn)"
    r"|\"Language: en(?![a-z])",
    re.IGNORECASE,
)  # XLIFF, Qt and gettext say so at their start
MNEMONIC = re.compile(r"\s*[(（][_&]\w[)）]")  # the key of a menu's entry: "打开(_O)" beside "_Open"
UNTRANSLATED = ("needs-translation", "new", "initial")  # states of XLIFF


@dataclass(frozen=True)
class Unit:
    """One entry: its text in the language of the file, or source and target of a file with both."""

    key: str
    source: str
    target: str
    line: int
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class ByKey(Source):
    """`files` hold both languages (.po, .xlf, .ts); `en` and `zh` hold one each and pair by position, entries by key.

    Those may be .strings, .properties, .json, .yml, Android's strings.xml, or a .po, .xlf or .ts with keys for texts.
    """

    files: tuple[str, ...] = ()
    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()
    flipped: bool = False  # `files`: the source language is Chinese

    @property
    def paths(self) -> tuple[str, ...]:
        """English files, Chinese files, bilingual files."""
        return self.en + self.zh + self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair an entry; `line` counts entries, or is the line where the format has lines."""
        for index, (en, zh) in enumerate(paired_files(self.name, self.en, self.zh)):
            pairs = _joined(self._units(root, en), self._units(root, zh))
            yield from pair_batches(map(_without_mnemonic, pairs), index)
        for index, path in enumerate(self.files, len(self.en) + len(self.zh)):
            flipped = self.flipped or bool(FROM_CHINESE.search(read_text(root, path, self.encoding)))
            pairs = (_bilingual(unit, flipped) for unit in self._units(root, path))
            yield from pair_batches(map(_without_mnemonic, pairs), index)

    def _units(self, root: str, path: str) -> list[Unit]:
        suffix = PurePosixPath(COMPRESSED.sub("", path.lower().rpartition("!")[2])).suffix
        if suffix in (".json", ".arb"):
            units = list(_nested_json(load_json(root, path, self.encoding)))
        elif suffix in (".yml", ".yaml"):
            units = list(_nested_yaml(compose_yaml(root, path, self.encoding), ""))
        elif suffix in PARSERS:
            units = PARSERS[suffix](read_text(root, path, self.encoding), path)
        else:
            raise UserError(f"{path}: {suffix or 'no suffix'} is not one of {', '.join(PARSERS)}, .json, .yml")
        if not units:
            raise UserError(f"{path}: no entry in it; is this a {suffix} file of texts?")
        return units


def _bilingual(unit: Unit, flipped: bool) -> Pair:
    en, zh = (unit.target, unit.source) if flipped else (unit.source, unit.target)
    return Pair(en, zh, unit.line, fault=unit.fault or ("" if unit.target else "one_sided"))


def _without_mnemonic(pair: Pair) -> Pair:
    zh, count = MNEMONIC.subn("", pair.zh)
    return replace(pair, en=re.sub(r"[_&](?=\w)", "", pair.en, count=1), zh=zh) if count else pair


def _joined(en: list[Unit], zh: list[Unit]) -> Iterator[Pair]:
    """Entries of the same key; a key that only one file has is the reject `one_sided`."""
    chinese = {unit.key: unit for unit in zh}
    for unit in en:
        other = chinese.get(unit.key)
        fault = "one_sided" if other is None else unit.fault or other.fault
        yield Pair(unit.target or unit.source, other.target or other.source if other else "", unit.line, fault=fault)
    keys = {unit.key for unit in en}
    for unit in zh:
        if unit.key not in keys or chinese[unit.key] is not unit:
            yield Pair("", unit.target or unit.source, unit.line, fault="one_sided")


def _po(text: str, path: str) -> list[Unit]:
    try:
        entries = polib.pofile("\n" + text)  # never a name of a file, as a text without line end could be
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path}: not gettext ({error}); fetch the file again") from error
    return [
        Unit(
            f"{entry.msgctxt or ''}\4{entry.msgid}",
            entry.msgid_plural or entry.msgid,
            entry.msgstr_plural.get(0, "") if entry.msgid_plural else entry.msgstr,
            entry.linenum - 1,
            "fuzzy" if entry.fuzzy or entry.obsolete else "",
        )
        for entry in entries
    ]


def _tree(text: str, path: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))  # its encoding is that of the source
    except ElementTree.ParseError as error:
        raise UserError(f"{path}:{error.position[0]}: not well-formed XML ({error}); fetch the file again") from error


def _xliff(text: str, path: str) -> list[Unit]:
    """<trans-unit> of XLIFF 1 and <segment> of XLIFF 2, source and target without inline code."""
    units = list[Unit]()
    for element in (e for e in _tree(text, path).iter() if local_name(e) in ("trans-unit", "segment")):
        sides = {local_name(child): child for child in element}
        source, target = (segment_text(sides[side]) if side in sides else "" for side in ("source", "target"))
        state = sides["target"].get("state", "") if "target" in sides else ""
        fault = "fuzzy" if state in UNTRANSLATED or element.get("state") in UNTRANSLATED else ""
        key = element.get("resname") or element.get("id") or source
        units.append(Unit(key, source, target, len(units) + 1, fault))
    return units


def _qt(text: str, path: str) -> list[Unit]:
    units = list[Unit]()
    for context in _tree(text, path).iter("context"):
        for message in context.iter("message"):
            source, translation = message.findtext("source") or "", message.find("translation")
            forms = [] if translation is None else [form.text or "" for form in translation.iter("numerusform")]
            target = forms[0] if forms else "" if translation is None else translation.text or ""
            is_draft = translation is not None and translation.get("type") in ("unfinished", "vanished", "obsolete")
            key = f"{context.findtext('name')}\4{message.get('id') or source}"
            units.append(Unit(key, source, target, len(units) + 1, "fuzzy" if is_draft else ""))
    return units


def _android(text: str, path: str) -> list[Unit]:
    """<string>, and the items of <string-array> and <plurals>; escapes resolved, white space collapsed."""
    units = list[Unit]()
    for element in _tree(text, path):
        items = [element] if element.tag == "string" else list(element.iter("item"))
        for number, item in enumerate(items):
            key = f"{element.get('name')}/{item.get('quantity', number) if item is not element else ''}"
            text = " ".join("".join(item.itertext()).split()).strip('"')
            units.append(Unit(key, _unescaped(text), "", len(units) + 1))
    return units


def _strings(text: str, path: str) -> list[Unit]:
    del path
    return [
        Unit(match[1], _unescaped(match[2]), "", text.count("\n", 0, match.start()) + 1)
        for match in STRINGS_ENTRY.finditer(text)
        if match[3] is None
    ]


def _properties(text: str, path: str) -> list[Unit]:
    del path
    joined = re.sub(r"\\\n[ \t]*", "", text)
    return [
        Unit(match[1], _unescaped(match[2]), "", number) for number, match in enumerate(PROPERTY.finditer(joined), 1)
    ]


def _unescaped(text: str) -> str:
    return ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else ESCAPED.get(m[2], m[2]), text)


def _nested_json(document: Json) -> Iterator[Unit]:
    """Texts of nested objects and arrays by their path; those of ARB's keys with @ are no texts of the program."""
    leaves = (("/".join(keys), value) for keys, value in json_leaves(document, into_lists=True))
    texts = ((path, value) for path, value in leaves if isinstance(value, str) and not path.startswith("@"))
    for number, (path, text) in enumerate(texts, 1):
        yield Unit(path, text, "", number)


def _nested_yaml(node: Json, key: str) -> Iterator[Unit]:
    """The same of a YAML node tree, with lines; Rails' top key, the language, is left out."""
    stack, seen = [(key, node)], set[int]()
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        stack = [("", node.value[0][1])]
    while stack:
        key, node = stack.pop()
        if isinstance(node, yaml.ScalarNode):
            yield Unit(key, node.value, "", node.start_mark.line + 1)
        elif node is not None and id(node) not in seen:
            seen.add(id(node))
            pairs = node.value if isinstance(node, yaml.MappingNode) else enumerate(node.value)
            names = [(name.value if isinstance(name, yaml.Node) else name, value) for name, value in pairs]
            stack += [(f"{key}/{name}" if key else str(name), value) for name, value in reversed(names)]


PARSERS: dict[str, Callable[[str, str], list[Unit]]] = {
    ".po": _po, ".xlf": _xliff, ".xliff": _xliff, ".ts": _qt, ".xml": _android, ".strings": _strings,
    ".properties": _properties,
}  # fmt: skip
