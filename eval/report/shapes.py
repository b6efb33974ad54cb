"""What the report relies on in the files of eval.generation and eval.pairs."""

from typing import NotRequired

from typing_extensions import TypedDict

from distill.export_result import Interval


class Measure(TypedDict):
    """Of one conditioning."""

    mean: float
    ci95: Interval


class Shown(TypedDict):
    """A prompt whose pictures are kept."""

    en: str
    zh: str
    mixed: NotRequired[str | None]


class DrawingSettings(TypedDict):
    """What the measures depend on."""

    prompts: int
    seeds: int
    sha256: dict[str, str]


class Drawing(TypedDict):
    """The result.json of eval.generation: each measure by conditioning."""

    psnr: dict[str, Measure]
    latent_distance: NotRequired[dict[str, Measure]]
    prediction_error: NotRequired[dict[str, Measure]]
    things: NotRequired[dict[str, Measure]]
    read_exact: NotRequired[dict[str, Measure]]
    shown: list[Shown]
    settings: DrawingSettings


class Cosines(TypedDict):
    """Mean cosine with the teacher's English over some pairs."""

    pairs: int
    zh: float
    en: float


class Worst(TypedDict):
    """A pair that is far from the teacher."""

    cosine: float
    domain: str
    zh: str
    en: str


class PairsFile(TypedDict):
    """The JSON of eval.pairs."""

    by_domain: dict[str, Cosines]
    by_length: dict[str, Cosines]
    by_slot: dict[str, list[float]]
    worst: list[Worst]
