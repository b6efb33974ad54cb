"""Bilingual SRT: cues whose lines are Chinese and English, with speaker marks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data.command import UserError
from data.sources.files import read_text
from data.sources.source import Pair, PairSource

TIMES = re.compile(r"^\s*\d{1,3}:\d\d:\d\d[,.]\d{1,3}\s*-->\s*\d{1,3}:\d\d:\d\d[,.]\d{1,3}")
HAN = re.compile(r"[\u3400-\u9fff]")
MARKS = re.compile(r"<[^<>]{0,120}>|\{\\[^{}]{0,120}\}")


@dataclass(frozen=True, kw_only=True)
class Srt(PairSource):
    """Each cue holds both languages, a line or more each; a line with Han characters is Chinese."""

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a cue; `line` is the line of its times."""
        yield from cues(read_text(root, path, self.encoding), path)


def cues(text: str, path: str) -> Iterator[Pair]:
    """The pairs of one file of subtitles."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if TIMES.match(line)]
    if not starts and text.strip():
        raise UserError(f"{path}: no cue times (00:00:01,000 --> 00:00:02,000); is this SRT?")
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=False):
        body = [MARKS.sub("", line).strip() for line in lines[start + 1 : end]]
        body = [line for line in body if line]
        if end <= len(lines) and body and body[-1].isdigit():
            body.pop()  # the next cue's number
        zh = [line for line in body if HAN.search(line)]
        en = [line for line in body if not HAN.search(line)]
        yield Pair(" ".join(en), " ".join(zh), start + 1)
