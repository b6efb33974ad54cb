"""Text options of every reader: what a cell of a tag table or glossary holds besides its text."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.schema import RAW, TEXT

STACKED_BRACKETS = r"\({2,}|\){2,}|\{+|\}+"
WEIGHT = r"\(?([^():]+):\d+(?:\.\d+)?\)?"
PART_OF_SPEECH = (
    r"(?i)(^|[;；,，/|\n]\s*)(?:(?:n|v|vt|vi|adj|adv|a|ad|prep|conj|pron|num|int|interj|art|aux|abbr|pl|phr|pref|suf)"
    r"\.\s*(?:[&/]\s*)?)+"
)
SUBJECT = r"\[[\x{4e00}-\x{9fff}]{1,4}\]\s*"  # [医] of ECDICT


@dataclass(frozen=True, kw_only=True)
class CellOptions:
    """Options of a source by which the cells of both sides are rewritten before anything else."""

    underscores: Literal["keep", "spaces"] = "keep"  # long_hair -> long hair
    weights: Literal["keep", "strip"] = "keep"  # attention marks: ((ink)), (glow:1.3) -> ink, glow
    part_of_speech: Literal["keep", "strip"] = "keep"  # n. cat -> cat; [医] 猫 -> 猫
    split: str = ""  # a separator of several names in one cell: "red hair<tab>红发|红头发" gives two pairs

    def rewrite_cells(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with the options applied; a row whose sides split into unequal counts has a fault."""
        if self.underscores == "spaces":
            batch = _replaced(batch, "_", " ")
        if self.weights == "strip":
            batch = _replaced(_replaced(batch, STACKED_BRACKETS, ""), WEIGHT, r"\1")
        if self.split:
            batch = _split_cells(batch, self.split)
        if self.part_of_speech == "strip":
            batch = _replaced(_replaced(batch, SUBJECT, ""), PART_OF_SPEECH, r"\1")
        return batch


def _replaced(batch: pa.RecordBatch, pattern: str, replacement: str) -> pa.RecordBatch:
    texts = {side: pc.replace_substring_regex(batch.column(side), pattern, replacement) for side in ("en", "zh")}
    return pa.RecordBatch.from_arrays([texts.get(name, batch.column(name)) for name in RAW.names], schema=RAW)


def _split_cells(batch: pa.RecordBatch, separator: str) -> pa.RecordBatch:
    """Several names a cell as several rows: each with each where one side has one name, else by position."""
    several = pc.or_(*(pc.match_substring(batch.column(side), separator) for side in ("en", "zh")))
    rows, changed = list[int](), dict[int, tuple[str, str, int, str]]()
    faultless = pc.equal(batch.column("fault"), "")
    mask = np.asarray(pc.and_(several, faultless), bool)
    for row in range(batch.num_rows):
        if not mask[row]:
            rows.append(row)
            continue
        en, zh = (
            [name for part in batch.column(side)[row].as_py().split(separator) if (name := part.strip())]
            for side in ("en", "zh")
        )
        width = max(len(en), len(zh))
        if 1 in (len(en), len(zh)) and min(len(en), len(zh)):
            en, zh = (side * width if len(side) == 1 else side for side in (en, zh))
        if len(en) != len(zh):
            changed[len(rows)] = (separator.join(en), separator.join(zh), 0, "unaligned_lines")
            rows.append(row)
            continue
        for sub, (a, b) in enumerate(zip(en, zh, strict=True), 1):
            changed[len(rows)] = (a, b, sub, "")
            rows.append(row)
    table = batch.take(pa.array(rows, pa.int64()))
    columns = {name: table.column(name) for name in RAW.names}
    where = np.zeros(len(rows), bool)
    where[list(changed)] = True
    for name, kind, values in zip(("en", "zh", "sub", "fault"), (TEXT, TEXT, pa.int32(), TEXT),
                                  zip(*changed.values(), strict=True), strict=False):  # fmt: skip
        columns[name] = pc.replace_with_mask(columns[name], pa.array(where), pa.array(values, kind))
    return pa.RecordBatch.from_arrays([columns[name] for name in RAW.names], schema=RAW)
