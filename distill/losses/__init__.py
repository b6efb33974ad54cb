"""Distillation losses: each a frozen dataclass that turns a step's encoder outputs into named, weighted scalars.

One file for what a loss looks at: pooled states, hidden states, a UNet's geometry, a decoder. docs/losses.md has their
formulae, uses and costs.
"""

from dataclasses import dataclass, field
from pathlib import Path

from distill.losses.base import EmptyPromptStates, LossInput, LossSchedule, LossTerms
from distill.losses.hidden import Alignment, EmptyPrompt, Hidden
from distill.losses.pooled import Affinity, Contrastive, Pooled, Similarity
from distill.losses.translation import Translation
from distill.losses.unet import KvMetric, Readout

AnyLoss = (
    Pooled | Hidden | Contrastive | Affinity | Similarity | Alignment | EmptyPrompt | KvMetric | Readout | Translation
)


@dataclass(frozen=True)
class LossesConfig:
    """The losses of a run; null leaves one out."""

    pooled: Pooled | None = field(default_factory=Pooled)
    hidden: Hidden | None = field(default_factory=Hidden)
    contrastive: Contrastive | None = field(default_factory=Contrastive)
    affinity: Affinity | None = None
    similarity: Similarity | None = None
    alignment: Alignment | None = None
    empty_prompt: EmptyPrompt | None = None
    kv_metric: KvMetric | None = None
    readout: Readout | None = None
    translation: Translation | None = None
    unet_geometry: Path | None = None
    """For readout and kv_metric: a UNet's maps and queries, a file that `python -m distill.unet_geometry` wrote."""

    def __post_init__(self) -> None:
        if not self.enabled:
            raise ValueError("losses: every loss is null; give at least one")
        if self.unet_geometry is None and self.readout:
            raise ValueError(
                "losses.readout: needs losses.unet_geometry, a file that "
                "`python -m distill.unet_geometry --unet ID_OR_DIR --out FILE.safetensors` writes"
            )

    @property
    def enabled(self) -> list[AnyLoss]:
        """The losses that are not null, in the order of the fields."""
        return [value for value in vars(self).values() if isinstance(value, AnyLoss)]

    @property
    def uses_zh_padding(self) -> bool:
        """Whether a loss uses the padding behind the Chinese text on max-length steps."""
        return any(loss is not None and loss.uses_zh_padding for loss in (self.hidden, self.kv_metric, self.readout))

    @property
    def uses_zh_states(self) -> bool:
        """Whether a loss uses the hidden states of all Chinese, as one that is not named here does.

        `translation` reads those of few rows.
        """
        pooled_or_english = Pooled | Contrastive | Affinity | Similarity | EmptyPrompt | Translation
        by_settings = Hidden | KvMetric | Readout
        text = self.hidden is not None and self.hidden.chinese > 0
        named = (isinstance(loss, pooled_or_english | by_settings) for loss in self.enabled)
        return text or self.uses_zh_padding or not all(named)


__all__ = [
    "Affinity", "Alignment", "Contrastive", "EmptyPrompt", "EmptyPromptStates", "Hidden", "KvMetric", "LossInput",
    "LossSchedule", "LossTerms", "LossesConfig", "Pooled", "Readout", "Similarity", "Translation",
]  # fmt: skip
