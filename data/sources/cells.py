"""What is rewritten in the rows of any reader: what a cell holds besides its text, lines that go on."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.sources.io import TEXT

STACKED_BRACKETS = r"\({2,}|\){2,}|\{+|\}+"
WEIGHT = r"\(?([^():]+):\d+(?:\.\d+)?\)?"
PART_OF_SPEECH = (
    r"(?i)(^|[;；,，/|\n]\s*)(?:(?:n|v|vt|vi|adj|adv|a|ad|prep|conj|pron|num|int|interj|art|aux|abbr|pl|phr|pref|suf)"
    r"\.\s*(?:[&/]\s*)?)+"
)
ENGLISH_END = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)]))(?<!\b[A-Z]\.)(?<!\b(?:Mr|Dr|St|Ms)\.)\s+(?=[\"'“‘(]?[A-Z0-9])"
)
CHINESE_END = re.compile(r"(?<=[。！？!?])(?![。！？!?”’』」）…])|(?<=[。！？!?…][”’』」）])(?![。！？!?”’』」）])")
STARTS_LOW = r"^[\s\-–'\".…]*[a-z]"  # an English line that goes on with a sentence
ENDS_OPEN = r"[^.!?…\"'\s]\s*$"  # an English line that does not end one
MAX_JOINED_LINES = 4
MAX_LINE_DISTANCE = 5  # a cue of SRT takes 4 or 5 lines
SUBJECT = r"\[[\x{4e00}-\x{9fff}]{1,4}\]\s*"  # [医] of ECDICT


@dataclass(frozen=True, kw_only=True)
class CellOptions:
    """Options of a source by which the cells of both sides are rewritten before anything else."""

    underscores: Literal["keep", "spaces"] = "keep"  # long_hair -> long hair
    weights: Literal["keep", "strip"] = "keep"  # attention marks: ((ink)), (glow:1.3) -> ink, glow
    part_of_speech: Literal["keep", "strip"] = "keep"  # n. cat -> cat; [医] 猫 -> 猫
    sentences: Literal["keep", "split"] = "keep"  # paragraphs as their sentences, where both sides have equally many
    split: str = ""  # a separator of several names in one cell: "red hair<tab>红发|红头发" gives two pairs

    def rewrite_cells(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with the options applied; a row whose sides split into unequal counts has a fault."""
        if self.underscores == "spaces":
            batch = _replaced(batch, "_", " ")
        if self.weights == "strip":
            batch = _replaced(_replaced(batch, STACKED_BRACKETS, ""), WEIGHT, r"\1")
        if self.split:
            batch = _split_cells(batch, self.split)
        if self.sentences == "split":
            batch = _split_sentences(batch)
        if self.part_of_speech == "strip":
            batch = _replaced(_replaced(batch, SUBJECT, ""), PART_OF_SPEECH, r"\1")
        return batch


def _replaced(batch: pa.RecordBatch, pattern: str, replacement: str) -> pa.RecordBatch:
    texts = {side: pc.replace_substring_regex(batch.column(side), pattern, replacement) for side in ("en", "zh")}
    return pa.RecordBatch.from_arrays(
        [texts.get(name, batch.column(name)) for name in batch.schema.names], schema=batch.schema
    )


Pairs = list[tuple[str, str]]


def _expand(batch: pa.RecordBatch, rows: npt.NDArray[np.bool_], split: Callable[[str, str], Pairs]) -> pa.RecordBatch:
    """`batch` with each of `rows` without a fault as the pairs of `split`, numbered in `sub`; none are a fault."""
    sources, changed = list[int](), dict[int, tuple[str, str, int, str]]()
    sound = np.asarray(pc.equal(batch.column("fault"), ""), bool)
    for row in range(batch.num_rows):
        if not (rows[row] and sound[row]):
            sources.append(row)
            continue
        en, zh = (batch.column(side)[row].as_py() for side in ("en", "zh"))
        pairs = split(en, zh)
        for sub, (left, right) in enumerate(pairs or [(en, zh)], 1):
            if not pairs or len(pairs) > 1 or (left, right) != (en, zh):
                numbered = sub if len(pairs) > 1 else batch.column("sub")[row].as_py()
                changed[len(sources)] = (left, right, numbered, "" if pairs else "unaligned_lines")
            sources.append(row)
    if not changed:
        return batch
    table = batch.take(pa.array(sources, pa.int64()))
    columns = {name: table.column(name) for name in batch.schema.names}
    mask = np.zeros(len(sources), bool)
    mask[list(changed)] = True
    for name, values in zip(("en", "zh", "sub", "fault"), zip(*changed.values(), strict=True), strict=True):
        columns[name] = pc.replace_with_mask(
            columns[name], pa.array(mask), pa.array(values, batch.schema.field(name).type)
        )
    return pa.RecordBatch.from_arrays([columns[name] for name in batch.schema.names], schema=batch.schema)


def _split_cells(batch: pa.RecordBatch, separator: str) -> pa.RecordBatch:
    """Several names a cell as several rows: each with each where one side has one name, else by position."""

    def split(*sides: str) -> Pairs:
        en, zh = ([name.strip() for name in side.split(separator) if name.strip()] for side in sides)
        if len(en) == 1 or len(zh) == 1:
            return [(a, b) for a in en for b in zh]
        return list(zip(en, zh, strict=True)) if len(en) == len(zh) else []

    several = [np.asarray(pc.match_substring(batch.column(side), separator), bool) for side in ("en", "zh")]
    return _expand(batch, several[0] | several[1], split)


def _split_sentences(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Paragraphs whose sides have equally many sentences as their sentences; others stay as they are."""

    def split(*sides: str) -> Pairs:
        en, zh = (end.split(side.strip()) for end, side in zip((ENGLISH_END, CHINESE_END), sides, strict=True))
        en, zh = ([part.strip() for part in side if part.strip()] for side in (en, zh))
        return list(zip(en, zh, strict=True)) if len(en) == len(zh) > 1 else [(sides[0], sides[1])]

    return _expand(batch, np.ones(batch.num_rows, bool), split)


def join_continued_lines(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Join subtitle lines that go on with the line before, on both sides: the two languages break at other places.

    The line that a sentence starts on holds the whole, the others become the reject `joined`.
    """
    if batch.num_rows < 2:
        return batch
    line, file = batch.column("line").to_numpy(), batch.column("file").to_numpy()
    starts_low = np.asarray(pc.match_substring_regex(batch.column("en"), STARTS_LOW), bool)
    ends_open = np.asarray(pc.match_substring_regex(batch.column("en"), ENDS_OPEN), bool)
    sound = np.asarray(pc.equal(batch.column("fault"), ""), bool)
    near = (line[1:] > line[:-1]) & (line[1:] - line[:-1] <= MAX_LINE_DISTANCE) & (file[1:] == file[:-1])
    goes_on = np.zeros(batch.num_rows, bool)
    goes_on[1:] = starts_low[1:] & ends_open[:-1] & sound[1:] & sound[:-1] & near
    if not goes_on.any():
        return batch
    heads = np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(goes_on))))
    goes_on &= (np.arange(len(goes_on)) - heads) % MAX_JOINED_LINES != 0
    starts = pa.array(np.append(np.flatnonzero(~goes_on), len(goes_on)).astype(np.int64))
    columns = {name: batch.column(name) for name in batch.schema.names}
    joined = pa.array(goes_on)
    for side in ("en", "zh"):
        lists = pa.LargeListArray.from_arrays(starts, columns[side])
        sentences = pc.binary_join(lists, pa.scalar(" ", TEXT)).take(pa.array(np.cumsum(~goes_on) - 1))
        columns[side] = pc.if_else(joined, columns[side], sentences)
    columns["fault"] = pc.if_else(joined, "joined", columns["fault"]).cast(TEXT)
    return pa.RecordBatch.from_arrays([*columns.values()], schema=batch.schema)
