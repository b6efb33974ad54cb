"""Marked-up segments: WMT's SGML in two files and XML in one, and TMX translation units, streamed."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

import pyarrow as pa

from data.cli import UserError
from data.sources.base import Pair, PairSource, Source, pair_batches, paired_files
from data.sources.io import damage_as_error, open_decompressed, read_text

DOCUMENT_OR_SEGMENT = re.compile(
    r"<doc\b(?P<document>[^<>]*)>|<seg\b(?P<segment>[^<>]*)>(?P<text>.*?)(?=</seg>|<seg\b|</?doc\b|\Z)",
    re.IGNORECASE | re.DOTALL,
)
DOCUMENT_ID = re.compile(r"\bdocid\s*=\s*[\"']?([^\"'\s<>]+)", re.IGNORECASE)
SEGMENT_ID = re.compile(r"\bid\s*=\s*[\"']?([^\"'\s<>]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Sgml(Source):
    """Aligned by (document, segment); a segment without partner is the reject `one_sided`."""

    en: tuple[str, ...]
    zh: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """English files, then Chinese."""
        return self.en + self.zh

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a segment; `line` is the segment's line in the English file."""
        for index, (en, zh) in enumerate(paired_files(self.name, self.en, self.zh)):
            left, right = (parse_segments(read_text(root, path, self.encoding), path) for path in (en, zh))
            yield from pair_batches(_pair_segments(left, right), index)


@dataclass(frozen=True)
class Segment:
    """One segment's text and the line where it starts."""

    text: str
    line: int


def parse_segments(text: str, path: str) -> dict[tuple[str, str], Segment]:
    """Every <seg> by (document id, segment id), closed or not; repeated ids get a running number.

    A segment without an id counts within its document, and `<` in its text is text.
    """
    segments = dict[tuple[str, str], Segment]()
    document, line, position = "", 1, 0
    for match in DOCUMENT_OR_SEGMENT.finditer(text):
        line, position = line + text.count("\n", position, match.start()), match.start()
        if match["document"] is not None:
            name = DOCUMENT_ID.search(match["document"])
            document = name[1] if name else f"document {line}"
            continue
        name = SEGMENT_ID.search(match["segment"])
        segment = name[1] if name else "#"
        key, repeat = (document, segment), 2
        while key in segments:
            key, repeat = (document, f"{segment}#{repeat}"), repeat + 1
        segments[key] = Segment(html.unescape(match["text"]).strip(), line)
    if not segments:
        raise UserError(f"{path}: no <seg id=...> in it; is this SGML?")
    return segments


def _pair_segments(en: dict[tuple[str, str], Segment], zh: dict[tuple[str, str], Segment]) -> Iterator[Pair]:
    for key, segment in en.items():
        other = zh.get(key)
        yield Pair(segment.text, other.text if other else "", segment.line, fault="" if other else "one_sided")
    for key, segment in zh.items():
        if key not in en:
            yield Pair("", segment.text, segment.line, fault="one_sided")


@dataclass(frozen=True, kw_only=True)
class WmtXml(PairSource):
    """WMT since 2021: <doc> with <src lang> and <ref lang>, whose <seg> share ids; every reference gives pairs."""

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a segment and reference (`sub` numbers the references); `line` counts segments."""
        number = 0
        with open_decompressed(root, path) as stream:
            for document in iter_elements(stream, path, "doc"):
                references = [_segments_by_id(side) for side in document if local_name(side) == "ref"]
                for source in (side for side in document if local_name(side) == "src"):
                    is_chinese = language_of(source.get("lang", "")) == "zh"
                    for number, (key, text) in enumerate(_segments_by_id(source).items(), number + 1):  # noqa: B020
                        for sub, reference in enumerate(references or [{}], 1):
                            other = reference.get(key)
                            en, zh = (other or "", text) if is_chinese else (text, other or "")
                            fault = "one_sided" if other is None else ""
                            yield Pair(en, zh, number, sub=sub if len(references) > 1 else 0, fault=fault)
        if not number:
            raise UserError(f"{path}: no <doc> with <src> and <seg> in it; is this WMT's XML?")


def _segments_by_id(side: ElementTree.Element) -> dict[str, str]:
    segments = [element for element in side.iter() if local_name(element) == "seg"]
    return {seg.get("id", f"#{n}"): segment_text(seg).strip() for n, seg in enumerate(segments)}


LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
LANGUAGE_CODES = {"eng": "en", "zho": "zh", "chi": "zh", "cmn": "zh"}
CODE_TAGS = {
    "bpt",
    "ept",
    "ph",
    "it",
    "ut",
    "x",
    "bx",
    "ex",
    "sc",
    "ec",
}  # of the program that a text is from
PLACEHOLDERS = {"ph", "it", "ut", "x"}  # they stand between words, where bpt and ept stand around them
GAP = re.compile(r"[\s\0]*\0[\s\0]*")
CLOSING = ".,;:!?)]}，。；：！？）】」』"


@dataclass(frozen=True, kw_only=True)
class Tmx(PairSource):
    """Units with a variant in each language; "zh" also means zh-CN, ZH_TW, zho, cmn and the like."""

    en: str = "en"
    zh: str = "zh"

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a unit; `line` counts units."""
        languages, paired = Counter[str](), False
        with open_decompressed(root, path) as stream:
            for number, unit in enumerate(iter_elements(stream, path, "tu"), 1):
                pair = self._pair(unit, number, languages)
                paired = paired or not pair.fault
                yield pair
        if not languages:
            raise UserError(f"{path}: no <tu> with <tuv> in it; is this TMX?")
        if not paired:
            names = ", ".join(name or "no language" for name, _ in languages.most_common(9))
            raise UserError(f"{path}: no unit has both {self.en!r} and {self.zh!r}; its languages are {names}")

    def _pair(self, unit: ElementTree.Element, number: int, languages: Counter[str]) -> Pair:
        texts = dict[str, str]()
        for variant in unit:
            if local_name(variant) == "tuv":
                code = variant.get(LANGUAGE) or variant.get("lang") or ""
                languages[code] += 1
                segment = next((child for child in variant if local_name(child) == "seg"), None)
                if segment is not None:
                    texts.setdefault(language_of(code), segment_text(segment))
        en, zh = texts.get(language_of(self.en)), texts.get(language_of(self.zh))
        missing = en is None or zh is None
        return Pair(en or "", zh or "", number, fault="languages" if missing else "")


def language_of(code: str) -> str:
    """The two-letter language of a code as files have them: en-US, EN_us, eng, zh-CN, zh-Hant, zho, cmn."""
    primary = code.lower().replace("_", "-").split("-")[0]
    return LANGUAGE_CODES.get(primary, primary)


def iter_elements(stream: IO[bytes], path: str, name: str) -> Iterator[ElementTree.Element]:
    """Every element of this name, freed after use: a file may be larger than memory."""
    parents = list[ElementTree.Element]()
    try:
        with damage_as_error(path):
            for event, element in ElementTree.iterparse(stream, events=("start", "end")):
                if event == "start":
                    parents.append(element)
                    continue
                parents.pop()
                if local_name(element) == name:
                    yield element
                    if parents:
                        parents[-1].remove(element)
    except ElementTree.ParseError as error:
        raise UserError(f"{path}:{error.position[0]}: not well-formed XML ({error}); fetch it again") from error


def local_name(element: ElementTree.Element) -> str:
    """The tag of `element` without its namespace."""
    return element.tag.rpartition("}")[2]


def segment_text(segment: ElementTree.Element) -> str:
    """The text of a segment without native code; where a placeholder stood, at most one space is left."""
    return GAP.sub(_close_gap, "".join(_text_pieces(segment)))


def _text_pieces(element: ElementTree.Element) -> Iterator[str]:
    """Text below `element`, outside of code or in a <sub> of it; a NUL for each placeholder."""
    is_code = local_name(element) in CODE_TAGS
    if not is_code:
        yield element.text or ""
    for child in element:
        if not is_code or local_name(child) == "sub":
            yield from _text_pieces(child)
        if not is_code:
            yield "\0" if local_name(child) in PLACEHOLDERS else ""
            yield child.tail or ""


def _close_gap(gap: re.Match[str]) -> str:
    before, after = gap.string[: gap.start()][-1:], gap.string[gap.end() :][:1]
    if not before or not after or after in CLOSING:
        return ""
    words = all(c.isascii() and c.isalnum() for c in before + after)
    return " " if words or gap[0].strip("\0") else ""
