"""The result of a retrieval benchmark: rows of recalls with intervals, ratios of rows, and all settings.

A result as a table for the terminal.
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
class ScoreRow:
    """One model on one language: scores [7] and draws [draws, 7] in the order of METRICS.

    `domain` is the part of a corpus that it is about; None where a benchmark has no parts.
    """

    model: str
    language: str
    scores: NDArray[np.float64]
    replicates: NDArray[np.float64]
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
class RetrievalResult:
    """All that a benchmark's run says; `settings` is plain JSON."""

    rows: tuple[ScoreRow, ...]
    ratios: tuple[Ratio, ...]
    settings: dict[str, Any]
    examples: tuple[Example, ...] = ()


def recall_ratio(upper: ScoreRow, lower: ScoreRow) -> Ratio | None:
    """`upper` in percent of `lower`, paired over images; None where `lower` scored nothing or on other images."""
    if lower.scores[6] == 0 or len(upper.replicates) != len(lower.replicates):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio_replicates = upper.replicates[:, 6] / lower.replicates[:, 6] * 100
    low, high = np.nanpercentile(ratio_replicates[np.isfinite(ratio_replicates)], [2.5, 97.5])
    name = f"{upper.model}-{upper.language}/{lower.model}-{lower.language}"
    return Ratio(name, float(upper.scores[6] / lower.scores[6] * 100), (float(low), float(high)))


def row_json(row: ScoreRow) -> dict[str, Any]:
    """A row with the keys of the schema, numbers rounded to 4 places."""
    low, high = np.nanpercentile(row.replicates, [2.5, 97.5], axis=0)
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


def result_json(result: RetrievalResult) -> dict[str, Any]:
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


ROLES = {("teacher", "en"): "ceiling", ("teacher", "zh"): "floor", ("teacher", "zh_hant"): "floor"}
HEADING = (
    f"{'model':10} {'captions':>14} | {'text to image':^17} | {'image to text':^17} | {'mean':>6}  95 % interval\n"
    f"{'':10} {'':>14} | {'R@1':>5} {'R@5':>5} {'R@10':>5} | {'R@1':>5} {'R@5':>5} {'R@10':>5} | {'recall':>6}"
)


def terminal_table(result: RetrievalResult) -> str:
    """Rows with the interval of their mean recall, then the ratios, then what the numbers depend on."""
    settings = result.settings
    lines = [HEADING, "-" * 90]
    for domain, rows in itertools.groupby(result.rows, key=lambda row: row.domain):
        lines += [*([f"{domain}:"] if domain else []), *(_terminal_row(row) for row in rows)]
    lines.append("")
    for ratio in result.ratios:
        low, high = ratio.ci95
        lines.append(f"{ratio.name}: {ratio.percent:.2f} % of the mean recall [{low:.2f}, {high:.2f}]")
    lines.append(
        f"{settings['benchmark']}, gallery of {settings['images']} ({settings['transform']}), protocol "
        f"{settings['protocol']}, at most {settings['max_length']} tokens, {settings['precision']}, "
        f"{settings['seconds']:.1f} s"
    )
    return "\n".join(lines)


def _terminal_row(row: ScoreRow) -> str:
    recalls = [f"{score:5.1f}" for score in row.scores[:6]]
    low, high = np.nanpercentile(row.replicates[:, 6], [2.5, 97.5])
    role = ROLES.get((row.model, row.language), "")
    return (
        f"{row.model:10} {row.captions:6} {row.language:>7} | {' '.join(recalls[:3])} | {' '.join(recalls[3:])} | "
        f"{row.scores[6]:6.2f}  [{low:.2f}, {high:.2f}]  {role}"
    ).rstrip()
