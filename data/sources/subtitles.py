"""Subtitles in SRT, WebVTT, ASS, SSA or LRC: both languages in one file, or two files aligned by time."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pysubs2

from data.cli import UserError
from data.sources.aligned import HAN
from data.sources.base import Pair, PairSource, Source, pair_batches, paired_files
from data.sources.io import read_text

STYLE_TAGS = re.compile(r"<[^<>]{0,120}>|\{\\[^{}]{0,120}\}")
LRC_LINE = re.compile(r"^((?:\[\d+:\d{2}(?:[.:]\d{1,3})?\])+)(.*)$", re.MULTILINE)
TIMED_FORMATS = {"srt": pysubs2.formats.subrip.SubripFormat, "vtt": pysubs2.formats.webvtt.WebVTTFormat}
MAX_GROUP = 4  # cues of both sides that make one pair: three to one at most


@dataclass(frozen=True)
class Cue:
    """One cue; times in milliseconds, lines of text joined by newlines, `line` that of its times in the file."""

    start: int
    end: int
    text: str
    line: int
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Srt(PairSource):
    """Each cue holds both languages, a line or more each; a line with Han characters is Chinese."""

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a cue; `line` is the line of its times."""
        return map(split_languages, parse_cues(read_text(root, path, self.encoding), path))


@dataclass(frozen=True, kw_only=True)
class Subtitles(Source):
    """`en` and `zh` files pair by position and their cues by time; or `files` hold both languages.

    In `files`, both are in one cue, or in two cues (styles) of the same times.
    """

    en: tuple[str, ...] = ()
    zh: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    overlap: float = 0.5  # of the shorter of two cues, for them to be one pair

    @property
    def paths(self) -> tuple[str, ...]:
        """English files, Chinese files, bilingual files."""
        return self.en + self.zh + self.files

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield aligned cues; `line` is the line of the English cue."""
        for index, (en, zh) in enumerate(paired_files(self.name, self.en, self.zh)):
            yield from pair_batches(align_cues(self._cues(root, en), self._cues(root, zh), self.overlap), index)
        for index, path in enumerate(self.files, len(self.en) + len(self.zh)):
            yield from pair_batches(map(split_languages, _merge_styles(self._cues(root, path))), index)

    def _cues(self, root: str, path: str) -> list[Cue]:
        cues = parse_cues(read_text(root, path, self.encoding), path)
        return sorted(cues, key=lambda cue: (cue.start, cue.line))


def parse_cues(text: str, path: str) -> list[Cue]:
    """The cues of one file in file order; a cue whose times are unreadable has the fault `times`."""
    if re.search(r"^Dialogue:", text, re.MULTILINE):
        with warnings.catch_warnings():  # of layers and margins, which have no meaning here
            warnings.simplefilter("ignore", RuntimeWarning)
            return [_ass_cue(line, n) for n, line in enumerate(text.split("\n"), 1) if line.startswith("Dialogue:")]
    if LRC_LINE.search(text) and "-->" not in text:
        return _lrc_cues(text)
    format_name = "vtt" if text.lstrip().startswith("WEBVTT") else "srt"
    timestamp = TIMED_FORMATS[format_name].TIMESTAMP  # pysubs2 makes one event of each line that holds two
    numbers = [n for n, line in enumerate(text.split("\n"), 1) if len(timestamp.findall(line)) == 2]
    if not numbers and text.strip():
        raise UserError(f"{path}: no cue times (00:00:01,000 --> 00:00:02,000); is this SRT, WebVTT, ASS, SSA or LRC?")
    events = pysubs2.SSAFile.from_string(text, format_name, keep_html_tags=True)
    return [
        Cue(event.start, event.end, _plain(event.text.replace("\\N", "\n")), number)
        for event, number in zip(events, numbers, strict=True)
    ]


def _ass_cue(line: str, number: int) -> Cue:
    try:
        (event,) = pysubs2.SSAFile.from_string(line, "ssa" if line.startswith("Dialogue: Marked") else "ass")
    except ValueError:
        return Cue(0, 0, line, number, fault="times")
    return Cue(event.start, event.end, _plain(event.plaintext), number)


def _lrc_cues(text: str) -> list[Cue]:
    """Lines of lyrics, each until the next time; a line may have several times."""
    starts = list[tuple[int, str, int]]()
    for number, line in enumerate(text.split("\n"), 1):
        if match := LRC_LINE.match(line):
            for minutes, seconds in re.findall(r"\[(\d+):(\d+(?:[.:]\d+)?)\]", match[1]):
                starts.append(
                    (round(60_000 * int(minutes) + 1000 * float(seconds.replace(":", "."))), match[2], number)
                )
    times = sorted({start for start, _, _ in starts})
    ends = dict(zip(times, [*times[1:], times[-1] + 1000], strict=True))
    return [Cue(start, ends[start], _plain(words), number) for start, words, number in starts if words.strip()]


def _plain(text: str) -> str:
    """`text` without style tags and blank lines."""
    lines = (STYLE_TAGS.sub("", line).strip() for line in text.split("\n"))
    return "\n".join(filter(None, lines))


def split_languages(cue: Cue) -> Pair:
    """The pair of a cue in both languages, by lines."""
    lines = cue.text.split("\n")
    en, zh = (" ".join(line for line in lines if bool(HAN.search(line)) == chinese) for chinese in (False, True))
    return Pair(en, zh, cue.line, fault=cue.fault)


def _merge_styles(cues: list[Cue]) -> Iterator[Cue]:
    """Cues of the same times as one: the lines of two styles."""
    for (start, end, fault), same in groupby(cues, key=lambda cue: (cue.start, cue.end, cue.fault)):
        group = list(same)
        texts = [cue.text for cue in group]
        if fault or len({bool(HAN.search(text)) for text in texts}) < 2:
            yield from group  # of one language: two speakers, not a translation
        else:
            yield Cue(start, end, "\n".join(texts), group[0].line)


def align_cues(en: list[Cue], zh: list[Cue], overlap: float) -> Iterator[Pair]:
    """Group cues that overlap in time, at most three to one; larger tangles and lone cues are rejects."""
    a = b = 0
    while a < len(en) and b < len(zh):
        if not _overlaps(en[a], zh[b], overlap):
            if en[a].end <= zh[b].end:
                yield _lone(en[a], english=True)
                a += 1
            else:
                yield _lone(zh[b], english=False)
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
        tangled = (stop_a - a) + (stop_b - b) > MAX_GROUP or (stop_a - a > 1 and stop_b - b > 1)
        left, right = (" ".join(_single_line(c.text) for c in side) for side in (en[a:stop_a], zh[b:stop_b]))
        yield Pair(left, right, en[a].line, fault="tangled_cues" if tangled else "")
        a, b = stop_a, stop_b
    for cue in en[a:]:
        yield _lone(cue, english=True)
    for cue in zh[b:]:
        yield _lone(cue, english=False)


def _lone(cue: Cue, english: bool) -> Pair:
    text = _single_line(cue.text)
    return Pair(text if english else "", "" if english else text, cue.line, fault=cue.fault or "one_sided")


def _single_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _overlaps(a: Cue, b: Cue, overlap: float) -> bool:
    shared = min(a.end, b.end) - max(a.start, b.start)
    return shared > 0 and shared >= overlap * max(min(a.end - a.start, b.end - b.start), 1)
