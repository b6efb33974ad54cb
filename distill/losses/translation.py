"""The auxiliary decoder's cross-entropy."""

from dataclasses import dataclass, field

from distill.decoder import DecoderConfig
from distill.losses.step import Schedule, Step, Terms

DIRECTIONS = ("zh_from_zh", "zh_from_en", "en_from_zh", "en_from_en")


@dataclass(frozen=True)
class Translation:
    """A small decoder must say the sentence from the student's states: they have to hold what it says.

    -log p(token | tokens before it, states), mean over the tokens, for each direction with a weight. The decoder is
    trained in the same step and left out by the export.
    """

    zh_from_zh: float = 0.1
    zh_from_en: float = 0.1
    en_from_zh: float = 0.0
    en_from_en: float = 0.0
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        """Refuse a decoder that says nothing."""
        if not any(self.weights.values()):
            raise ValueError("losses.translation: every direction has weight 0; give one a weight, or leave it out")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each direction that has one."""
        every = (self.zh_from_zh, self.zh_from_en, self.en_from_zh, self.en_from_en)
        return {direction: weight for direction, weight in zip(DIRECTIONS, every, strict=True) if weight}

    def terms(self, step: Step) -> Terms:
        """`translation_zh_from_en` and so on."""
        return {f"translation_{direction}": w * step.spoken[direction] for direction, w in self.weights.items()}
