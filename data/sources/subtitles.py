"""Two subtitle files of one film, SRT or ASS, aligned by time; and bilingual ASS.

Bilingual SRT: cues whose lines are Chinese and English, with speaker marks.

Sentences that subtitles cut into lines, put together again: the two languages cut them at different places.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.cli import UserError
from data.schema import RAW, TEXT
from data.sources.base import Pair, PairSource, Source, pair_batches
from data.sources.io import read_text

CUE_TIMES = re.compile(r"^\s*\d{1,3}:\d\d:\d\d[,.]\d{1,3}\s*-->\s*\d{1,3}:\d\d:\d\d[,.]\d{1,3}")
HAN_PATTERN = re.compile(r"[\u3400-\u9fff]")
STYLE_TAGS = re.compile(r"<[^<>]{0,120}>|\{\\[^{}]{0,120}\}")


@dataclass(frozen=True, kw_only=True)
class Srt(PairSource):
    """Each cue holds both languages, a line or more each; a line with Han characters is Chinese."""

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a cue; `line` is the line of its times."""
        yield from srt_pairs(read_text(root, path, self.encoding), path)


def srt_pairs(text: str, path: str) -> Iterator[Pair]:
    """The pairs of one file of subtitles."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if CUE_TIMES.match(line)]
    if not starts and text.strip():
        raise UserError(f"{path}: no cue times (00:00:01,000 --> 00:00:02,000); is this SRT?")
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=False):
        body = [STYLE_TAGS.sub("", line).strip() for line in lines[start + 1 : end]]
        body = [line for line in body if line]
        if end <= len(lines) and body and body[-1].isdigit():
            body.pop()  # the next cue's number
        zh = [line for line in body if HAN_PATTERN.search(line)]
        en = [line for line in body if not HAN_PATTERN.search(line)]
        yield Pair(" ".join(en), " ".join(zh), start + 1)


TIMESTAMP = re.compile(r"(\d{1,3}):(\d\d):(\d\d)[,.](\d{1,3})")
ASS = re.compile(r"^Dialogue:\s*[^,]*,([^,]*),([^,]*),(?:[^,]*,){6}(.*)$")
BREAK = re.compile(r"\\[Nn]")


@dataclass(frozen=True)
class Cue:
    """One cue; times in seconds."""

    start: float
    end: float
    text: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Subtitles(Source):
    """`en` and `zh` files pair by position and their cues by time; or `files` are ASS with both languages a cue."""

    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    overlap: float = 0.5  # of the shorter of two cues, for them to speak of the same

    @property
    def paths(self) -> tuple[str, ...]:
        """English files, Chinese files, bilingual files."""
        return self.en + self.zh + self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield aligned cues; `line` is the line of the English cue."""
        if len(self.en) != len(self.zh):
            raise UserError(
                f"source {self.name}: en has {len(self.en)} files, zh {len(self.zh)}; they pair by position"
            )
        for index, (en, zh) in enumerate(zip(self.en, self.zh, strict=True)):
            left, right = (parse_cues(read_text(root, path, self.encoding), path) for path in (en, zh))
            yield from pair_batches(align_cues(left, right, self.overlap), index)
        for index, path in enumerate(self.files, len(self.en) + len(self.zh)):
            yield from pair_batches(map(_bilingual, parse_cues(read_text(root, path, self.encoding), path)), index)


def parse_cues(text: str, path: str) -> list[Cue]:
    """The cues of one file in order of time, lines of a cue joined by newlines."""
    lines = text.splitlines()
    ass = [(number, match) for number, line in enumerate(lines, 1) if (match := ASS.match(line))]
    if ass:
        found = [Cue(_seconds(m[1]), _seconds(m[2]), BREAK.sub("\n", STYLE_TAGS.sub("", m[3])), n) for n, m in ass]
    else:
        found = list(_srt(lines))
    if not found and text.strip():
        raise UserError(f"{path}: no cue times in it; is this SRT or ASS?")
    return sorted(found, key=lambda cue: (cue.start, cue.line))


def _srt(lines: list[str]) -> Iterator[Cue]:
    heads = [number for number, line in enumerate(lines) if CUE_TIMES.match(line)]
    for head, after in zip(heads, [*heads[1:], len(lines) + 1], strict=False):
        body = [STYLE_TAGS.sub("", line).strip() for line in lines[head + 1 : after]]
        body = [line for line in body if line]
        if after <= len(lines) and body and body[-1].isdigit():
            body.pop()  # the next cue's number
        first, second = TIMESTAMP.findall(lines[head])[:2]
        yield Cue(_clock(*first), _clock(*second), "\n".join(body), head + 1)


def _seconds(stamp: str) -> float:
    match = TIMESTAMP.search(stamp)
    return _clock(*match.groups()) if match else 0.0


def _clock(hours: str, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")


def _single_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _bilingual(cue: Cue) -> Pair:
    lines = cue.text.split("\n")
    zh = " ".join(line for line in lines if HAN_PATTERN.search(line))
    return Pair(" ".join(line for line in lines if not HAN_PATTERN.search(line)), zh, cue.line)


def align_cues(en: list[Cue], zh: list[Cue], overlap: float) -> Iterator[Pair]:
    """Group cues that overlap in time, at most three to one; larger tangles and lone cues are rejects."""
    a = b = 0
    while a < len(en) and b < len(zh):
        if not _overlaps(en[a], zh[b], overlap):
            if en[a].end <= zh[b].end:
                yield Pair(_single_line(en[a].text), "", en[a].line, fault="one_sided")
                a += 1
            else:
                yield Pair("", _single_line(zh[b].text), zh[b].line, fault="one_sided")
                b += 1
            continue
        stop_a, stop_b = a + 1, b + 1
        while True:
            if stop_b < len(zh) and _overlaps(en[stop_a - 1], zh[stop_b], overlap):
                stop_b += 1
            elif stop_a < len(en) and _overlaps(en[stop_a], zh[stop_b - 1], overlap):
                stop_a += 1
            else:
                break
        tangled = (stop_a - a) + (stop_b - b) > 4 or (stop_a - a > 1 and stop_b - b > 1)
        left, right = (" ".join(_single_line(c.text) for c in side) for side in (en[a:stop_a], zh[b:stop_b]))
        yield Pair(left, right, en[a].line, fault="tangled_cues" if tangled else "")
        a, b = stop_a, stop_b
    for cue in en[a:]:
        yield Pair(_single_line(cue.text), "", cue.line, fault="one_sided")
    for cue in zh[b:]:
        yield Pair("", _single_line(cue.text), cue.line, fault="one_sided")


def _overlaps(a: Cue, b: Cue, overlap: float) -> bool:
    shared = min(a.end, b.end) - max(a.start, b.start)
    return shared > 0 and shared >= overlap * max(min(a.end - a.start, b.end - b.start), 1e-3)


STARTS_LOW = r"^[\s\-–'\".…]*[a-z]"  # an English line that goes on with a sentence
ENDS_OPEN = r"[^.!?…\"'\s]\s*$"  # an English line that does not end one
MAX_JOINED_LINES = 4


def join_continued_lines(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Join each line that goes on with the one before it, both sides; the lines so used up are the reject `joined`."""
    if batch.num_rows < 2:
        return batch
    en, line = batch.column("en"), batch.column("line").to_numpy()
    low = np.asarray(pc.match_substring_regex(en, STARTS_LOW), bool)
    open_end = np.asarray(pc.match_substring_regex(en, ENDS_OPEN), bool)
    no_fault = np.asarray(pc.equal(batch.column("fault"), ""), bool)
    goes_on = np.zeros(batch.num_rows, bool)
    file = batch.column("file").to_numpy()
    near = (line[1:] > line[:-1]) & (line[1:] - line[:-1] <= 5) & (file[1:] == file[:-1])  # a cue of SRT takes 4 or 5
    goes_on[1:] = low[1:] & open_end[:-1] & no_fault[1:] & no_fault[:-1] & near
    if not goes_on.any():
        return batch
    heads = np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(goes_on))))
    goes_on &= (np.arange(len(goes_on)) - heads) % MAX_JOINED_LINES != 0
    starts = np.append(np.flatnonzero(~goes_on), len(goes_on)).astype(np.int64)
    columns = {name: batch.column(name) for name in RAW.names}
    joined = pa.array(goes_on)
    for side in ("en", "zh"):
        lists = pa.LargeListArray.from_arrays(pa.array(starts), columns[side])
        joined_lines = pc.binary_join(lists, pa.scalar(" ", TEXT))
        columns[side] = pc.if_else(joined, columns[side], joined_lines.take(pa.array(np.cumsum(~goes_on) - 1)))
    columns["fault"] = pc.if_else(joined, "joined", columns["fault"]).cast(TEXT)
    return pa.RecordBatch.from_arrays([columns[name] for name in RAW.names], schema=RAW)
