"""A retrieval benchmark's run: what was asked, and its result as JSON and table.

Asked are models, data and one of two protocols; the result has rows of recalls with intervals, their ratios, settings.
"""

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data.files import write_json
from distill.export.results import MEAN_RECALL, METRICS, RECALLS, ROW_NOTES, ratio_title
from eval.metrics import Values, percentile_interval

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]
ProtocolName = Literal["chinese-clip", "openai"]
_MR = METRICS.index(MEAN_RECALL)
COMPARED_ROWS = (
    (("student", "zh"), ("teacher", "zh_en")),
    (("student", "zh"), ("teacher", "en")),
    (("student", "zh_hant"), ("teacher", "zh_en")),
    (("student", "zh_hant"), ("teacher", "en")),
    (("student", "en"), ("teacher", "en")),
    (("student", "en_all"), ("teacher", "en_all")),
    (("mt+teacher", "zh"), ("teacher", "zh_en")),
    (("mt+teacher", "zh"), ("teacher", "en")),
)
"""(model, language) of the two rows of each ratio; the fair one, with the same captions on both sides, is first."""


@dataclass(frozen=True)
class Protocol:
    """How pictures and captions are prepared; `max_length` is in tokens, start and end of text included."""

    name: ProtocolName
    transform: Literal["squash", "crop"]
    max_length: int
    lower_case: bool
    straight_quotes: bool


CHINESE_CLIP = Protocol("chinese-clip", transform="squash", max_length=52, lower_case=True, straight_quotes=True)
OPENAI = Protocol("openai", transform="crop", max_length=77, lower_case=False, straight_quotes=False)
PROTOCOLS: dict[ProtocolName, Protocol] = {protocol.name: protocol for protocol in (CHINESE_CLIP, OPENAI)}


def normalise_caption(text: str, protocol: Protocol) -> str:
    """A caption as the protocol passes it to the tokenizer."""
    if protocol.straight_quotes:
        text = text.replace("“", '"').replace("”", '"')
    return text.lower() if protocol.lower_case else text


@dataclass(frozen=True)
class Options:
    """Models, data and protocol of a benchmark run; `--help` explains each."""

    student: str
    clip: str
    data: str
    translator: str | None
    out: Path | None
    protocol: Protocol
    max_length: int
    title: str | None
    examples: int
    precision: Precision
    device_name: str | None
    command: str
    image_features: Path | None = None
    images: Path | None = None
    english: str | None = None
    traditional: bool = False

    @property
    def dtype(self) -> "torch.dtype":
        """Of the towers; features are always float32."""
        from distill.loading import torch_dtype

        return torch_dtype(self.precision)

    @property
    def device(self) -> "torch.device":
        """Of `device_name`; UserError where torch cannot use it."""
        from distill.loading import resolve_device

        return resolve_device(self.device_name)


@dataclass(frozen=True)
class Example:
    """A caption as a query: its right images, the first five in the ranking, and the rank, from 1, of the first right
    one."""

    model: str
    language: str
    caption: str
    right: tuple[str, ...]
    found: tuple[str, ...]
    place: int


@dataclass(frozen=True)
class ScoreRow:
    """One model on one language: scores [7] and bootstrap replicates [draws, 7] in the order of METRICS, in percent.

    `domain` is a part of a corpus; None where a benchmark has no parts. `cut` captions were over the maximum length.
    """

    model: str
    language: str
    scores: Values
    replicates: Values
    captions: int
    images: int
    cut: int
    examples: tuple[Example, ...] = ()
    domain: str | None = None

    @property
    def mean_recall(self) -> float:
        """In percent."""
        return float(self.scores[_MR])

    def to_json(self) -> dict[str, Any]:
        """JSON values, numbers rounded to 4 places."""
        return {
            **({} if self.domain is None else {"domain": self.domain}),
            "model": self.model,
            "language": self.language,
            **{metric.key: round(float(score), 4) for metric, score in zip(METRICS, self.scores, strict=True)},
            "ci95": {
                metric.key: [round(bound, 4) for bound in percentile_interval(values)]
                for metric, values in zip(METRICS, self.replicates.T, strict=True)
            },
            "captions": self.captions,
            "images": self.images,
            "cut": self.cut,
        }

    def to_line(self) -> str:
        """For the terminal, under HEADING."""
        scores = [f"{score:5.1f}" for score in self.scores[: len(RECALLS)]]
        low, high = percentile_interval(self.replicates[:, _MR])
        note = ROW_NOTES.get((self.model, self.language), "")
        return (
            f"{self.model:10} {self.captions:6} {self.language:>7} | {' '.join(scores[:3])} | {' '.join(scores[3:])} | "
            f"{self.mean_recall:6.2f}  [{low:.2f}, {high:.2f}]  {note}"
        ).rstrip()


@dataclass(frozen=True)
class Ratio:
    """Mean recall of one row in percent of another's, with its paired interval."""

    name: str
    percent: float
    ci95: tuple[float, float]


def recall_ratio(upper: ScoreRow, lower: ScoreRow) -> Ratio | None:
    """`upper` in percent of `lower`, paired over images; None where `lower` is 0 or on other images."""
    if lower.mean_recall == 0 or len(upper.replicates) != len(lower.replicates):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = upper.replicates[:, _MR] / lower.replicates[:, _MR] * 100
    interval = percentile_interval(replicates[np.isfinite(replicates)])
    name = f"{upper.model}-{upper.language}/{lower.model}-{lower.language}"
    return Ratio(name, upper.mean_recall / lower.mean_recall * 100, interval)


def recall_ratios(rows: tuple[ScoreRow, ...]) -> tuple[Ratio, ...]:
    """COMPARED_ROWS, as far as `rows` has them."""
    by_key = {(row.model, row.language): row for row in rows}
    ratios = [
        recall_ratio(by_key[upper], by_key[lower])
        for upper, lower in COMPARED_ROWS
        if upper in by_key and lower in by_key
    ]
    return tuple(ratio for ratio in ratios if ratio is not None)


HEADING = (
    f"{'model':10} {'captions':>14} | {'text to image':^17} | {'image to text':^17} | {'mean':>6}  95 % interval\n"
    f"{'':10} {'':>14} | {'R@1':>5} {'R@5':>5} {'R@10':>5} | {'R@1':>5} {'R@5':>5} {'R@10':>5} | {'recall':>6}"
)


@dataclass(frozen=True)
class RetrievalResult:
    """A benchmark run; `settings` holds JSON values."""

    rows: tuple[ScoreRow, ...]
    ratios: tuple[Ratio, ...]
    settings: dict[str, Any]

    @property
    def examples(self) -> tuple[Example, ...]:
        """Of all rows."""
        return tuple(example for row in self.rows for example in row.examples)

    def publish(self, out: Path | None) -> "RetrievalResult":
        """Print the table, write the JSON to `out`, and return the result itself."""
        print(self.to_table())
        if out is not None:
            write_json(self.to_json(), out)
        return self

    def to_json(self) -> dict[str, Any]:
        """The result file."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "ratios": {
                ratio.name: {"percent": round(ratio.percent, 4), "ci95": [round(bound, 4) for bound in ratio.ci95]}
                for ratio in self.ratios
            },
            "examples": [asdict(example) for example in self.examples],
            "settings": self.settings,
        }

    def to_table(self) -> str:
        """For the terminal: rows with the interval of their mean recall, ratios, settings."""
        settings = self.settings
        lines = [HEADING, "-" * 90]
        for domain, rows in itertools.groupby(self.rows, key=lambda row: row.domain):
            lines += [*([f"{domain}:"] if domain else []), *(row.to_line() for row in rows)]
        lines.append("")
        for ratio in self.ratios:
            low, high = ratio.ci95
            lines.append(f"{ratio_title(ratio.name)}: {ratio.percent:.2f} % [{low:.2f}, {high:.2f}]")
        lines.append(
            f"{settings['benchmark']}, gallery of {settings['images']} ({settings['transform']}), protocol "
            f"{settings['protocol']}, at most {settings['max_length']} tokens, {settings['precision']}, "
            f"{settings['seconds']:.1f} s"
        )
        return "\n".join(lines)
