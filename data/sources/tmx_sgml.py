"""WMT and AI-Challenger SGML: a source and a reference file whose segments share document and segment ids.

TMX: translation units of OPUS, the European institutions and translation memories, streamed.
"""

import gzip
import html
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

import pyarrow as pa

from data.cli import UserError
from data.sources.base import Pair, PairSource, Source, pair_batches
from data.sources.io import STREAM_ERRORS, damaged_file_error, open_decompressed, read_text

TOKEN = re.compile(
    r"<doc\b[^<>]*?docid\s*=\s*[\"']?([^\"'\s<>]+)[^<>]*>|<seg\b[^<>]*?id\s*=\s*[\"']?([^\"'\s<>]+)[^<>]*>([^<]*)</seg>",
    re.IGNORECASE,
)


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
        if len(self.en) != len(self.zh):
            raise UserError(
                f"source {self.name}: en has {len(self.en)} files, zh {len(self.zh)}; they pair by position"
            )
        for index, (en, zh) in enumerate(zip(self.en, self.zh, strict=True)):
            left, right = (segments(read_text(root, path, self.encoding), path) for path in (en, zh))
            yield from pair_batches(_pair_segments(left, right), index)


@dataclass(frozen=True)
class Segment:
    """One segment's text and where it stands."""

    text: str
    line: int


def segments(text: str, path: str) -> dict[tuple[str, str], Segment]:
    """Segments by (document id, segment id); repeated ids get a running number."""
    found = dict[tuple[str, str], Segment]()
    document, line, at = "", 1, 0
    for match in TOKEN.finditer(text):
        line, at = line + text.count("\n", at, match.start()), match.start()
        if match.group(1):
            document = match.group(1)
            continue
        key, repeat = (document, match.group(2)), 2
        while key in found:
            key, repeat = (document, f"{match.group(2)}#{repeat}"), repeat + 1
        found[key] = Segment(html.unescape(match.group(3)).strip(), line)
    if not found:
        raise UserError(f"{path}: no <seg id=...> in it; is this SGML?")
    return found


def _pair_segments(en: dict[tuple[str, str], Segment], zh: dict[tuple[str, str], Segment]) -> Iterator[Pair]:
    for key, segment in en.items():
        other = zh.get(key)
        yield Pair(segment.text, other.text if other else "", segment.line, fault="" if other else "one_sided")
    for key, segment in zh.items():
        if key not in en:
            yield Pair("", segment.text, segment.line, fault="one_sided")


LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True, kw_only=True)
class Tmx(PairSource):
    """Units with a variant in each language; "zh" also means zh-CN, ZH_TW and the like."""

    en: str = "en"
    zh: str = "zh"

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a unit; `line` counts units."""
        with open_decompressed(root, path) as stream:
            yield from self._pairs(stream, path)

    def _pairs(self, stream: IO[bytes], path: str) -> Iterator[Pair]:
        number = 0
        parser = ElementTree.iterparse(stream, events=("start", "end"))
        parents = list[ElementTree.Element]()
        try:
            for event, element in parser:
                if event == "start":
                    parents.append(element)
                    continue
                parents.pop()
                if element.tag == "tu":
                    number += 1
                    yield self._pair(element, number)
                    if parents:
                        parents[-1].remove(element)  # what was read is freed: a TMX may be larger than memory
        except ElementTree.ParseError as error:
            raise UserError(f"{path}:{error.position[0]}: not well-formed TMX ({error}); fetch it again") from error
        except (*STREAM_ERRORS, gzip.BadGzipFile, zlib.error) as error:
            raise damaged_file_error(path, error) from error

    def _pair(self, unit: ElementTree.Element, number: int) -> Pair:
        texts = dict[str, str]()
        for variant in unit.iter("tuv"):
            language = (variant.get(LANGUAGE) or variant.get("lang") or "").lower().replace("_", "-")
            segment = variant.find("seg")
            if segment is not None:
                texts.setdefault(language.split("-")[0], "".join(segment.itertext()))
        en, zh = texts.get(self.en), texts.get(self.zh)
        if en is None or zh is None:
            return Pair(en or "", zh or "", number, fault="languages")
        return Pair(en, zh, number)
