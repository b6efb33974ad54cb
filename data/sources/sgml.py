"""WMT and AI-Challenger SGML: a source and a reference file whose segments share document and segment ids."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.command import UserError
from data.sources.files import read_text
from data.sources.source import Pair, Source, batches

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
            yield from batches(_joined(left, right), index)


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
        key, again = (document, match.group(2)), 2
        while key in found:
            key, again = (document, f"{match.group(2)}#{again}"), again + 1
        found[key] = Segment(html.unescape(match.group(3)).strip(), line)
    if not found:
        raise UserError(f"{path}: no <seg id=...> in it; is this SGML?")
    return found


def _joined(en: dict[tuple[str, str], Segment], zh: dict[tuple[str, str], Segment]) -> Iterator[Pair]:
    for key, segment in en.items():
        other = zh.get(key)
        yield Pair(segment.text, other.text if other else "", segment.line, fault="" if other else "one_sided")
    for key, segment in zh.items():
        if key not in en:
            yield Pair("", segment.text, segment.line, fault="one_sided")
