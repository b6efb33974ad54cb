"""The result file of a benchmark, as `python -m eval.NAME --out` writes it: what the card and the report rely on."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

FIX = "write it again with python -m eval.NAME --out"
Interval = tuple[float, float]
Metric = Literal["t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mr"]


class Intervals(TypedDict):
    """Of the scores of a row."""

    mr: Interval


class Row(TypedDict):
    """One model on one language, and of a corpus on one domain."""

    domain: NotRequired[str]
    model: str
    language: str
    t2i_r1: float
    t2i_r5: float
    t2i_r10: float
    i2t_r1: float
    i2t_r5: float
    i2t_r10: float
    mr: float
    ci95: Intervals


class Ratio(TypedDict):
    """Mean recall of one row in percent of another's."""

    percent: float
    ci95: Interval


class Example(TypedDict):
    """A caption as a query and what it found."""

    model: str
    language: str
    caption: str
    right: list[str]
    found: list[str]
    place: int


class Sample(TypedDict):
    """A pair and what was said for it."""

    en: str
    zh: str
    said: str


class Translation(TypedDict):
    """One domain in one direction."""

    domain: str
    model: str
    direction: str
    sentences: int
    bleu: float
    bleu_ci95: Interval
    bleu_signature: str
    chrf: float
    chrf_ci95: Interval
    samples: list[Sample]


class Settings(TypedDict):
    """What the scores depend on."""

    benchmark: str
    images: int
    protocol: str
    max_length: int
    precision: str
    student: str
    sha256: dict[str, str]


class Result(TypedDict):
    """The whole file."""

    rows: list[Row]
    ratios: NotRequired[dict[str, Ratio]]
    examples: NotRequired[list[Example]]
    translations: NotRequired[list[Translation]]
    settings: Settings
