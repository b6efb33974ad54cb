"""The result of a retrieval benchmark: rows of recalls with intervals, ratios of rows, and all settings."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.command import UserError

METRICS = ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mr")
"""Recall at 1, 5, 10, text to image and image to text, and their mean, in percent."""


@dataclass(frozen=True)
class Example:
    """A caption as a query: its right images, the five that came first, and from 1 the place of the first right one."""

    model: str
    language: str
    caption: str
    right: tuple[str, ...]
    found: tuple[str, ...]
    place: int


@dataclass(frozen=True)
class Row:
    """One model on one language: scores [7] and draws [draws, 7] in the order of METRICS.

    `domain` is the part of a corpus that it is about; None where a benchmark has no parts.
    """

    model: str
    language: str
    scores: NDArray[np.float64]
    draws: NDArray[np.float64]
    captions: int
    images: int
    cut: int
    examples: tuple[Example, ...] = ()
    domain: str | None = None


@dataclass(frozen=True)
class Ratio:
    """Mean recall of one row in percent of another's, with its paired interval."""

    name: str
    percent: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Result:
    """All that a benchmark's run says; `settings` is plain JSON."""

    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    settings: dict[str, Any]
    examples: tuple[Example, ...] = ()


def ratio(upper: Row, lower: Row) -> Ratio | None:
    """`upper` in percent of `lower`, paired over images; None where `lower` scored nothing or on other images."""
    if lower.scores[6] == 0 or len(upper.draws) != len(lower.draws):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = upper.draws[:, 6] / lower.draws[:, 6] * 100
    low, high = np.nanpercentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
    name = f"{upper.model}-{upper.language}/{lower.model}-{lower.language}"
    return Ratio(name, float(upper.scores[6] / lower.scores[6] * 100), (float(low), float(high)))


def row_json(row: Row) -> dict[str, Any]:
    """A row with the keys of the schema, numbers rounded to 4 places."""
    low, high = np.nanpercentile(row.draws, [2.5, 97.5], axis=0)
    return {
        **({} if row.domain is None else {"domain": row.domain}),
        "model": row.model,
        "language": row.language,
        **{name: round(float(score), 4) for name, score in zip(METRICS, row.scores, strict=True)},
        "ci95": {name: [round(float(a), 4), round(float(b), 4)] for name, a, b in zip(METRICS, low, high, strict=True)},
        "captions": row.captions,
        "images": row.images,
        "cut": row.cut,
    }


def result_json(result: Result) -> dict[str, Any]:
    """The whole result as JSON values."""
    return {
        "rows": [row_json(row) for row in result.rows],
        "ratios": {
            each.name: {"percent": round(each.percent, 4), "ci95": [round(bound, 4) for bound in each.ci95]}
            for each in result.ratios
        },
        "examples": [asdict(example) for example in result.examples],
        "settings": result.settings,
    }


def refuse_unwritable(out: Path) -> None:
    """Say that a result cannot be written to the file `out` before it is computed."""
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; name a file, such as {out / 'result.json'}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: no folder {out.parent}; make it first")


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write `value` as `write_text` does."""
    write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write `text` so that a reader sees the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
