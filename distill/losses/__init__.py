"""What the student is asked for: each loss a frozen dataclass that turns a step's states into named terms.

A term is a scalar tensor, already weighted; the loss of a step is the sum of its terms. One file a loss; their
formulae, uses and costs stand in docs/losses.md.

The losses of a run.
"""

from dataclasses import dataclass, field
from pathlib import Path

from distill.losses.base import EmptyPromptStates, LossInput, LossSchedule, LossTerms
from distill.losses.hidden import Alignment, EmptyPrompt, Hidden
from distill.losses.pooled import Affinity, Contrastive, Pooled
from distill.losses.translation import Translation
from distill.losses.unet import KvMetric, Readout

Loss = Pooled | Hidden | Contrastive | Affinity | Alignment | EmptyPrompt | KvMetric | Readout | Translation


@dataclass(frozen=True)
class LossesConfig:
    """The losses of a run; null leaves one out."""

    pooled: Pooled | None = field(default_factory=Pooled)
    hidden: Hidden | None = field(default_factory=Hidden)
    contrastive: Contrastive | None = field(default_factory=Contrastive)
    affinity: Affinity | None = None
    alignment: Alignment | None = None
    empty_prompt: EmptyPrompt | None = None
    kv_metric: KvMetric | None = None
    readout: Readout | None = None
    translation: Translation | None = None
    unet_geometry: Path | None = None
    """What kv_metric and readout know of a UNet: a file that `python -m distill.unet_geometry` wrote."""

    def __post_init__(self) -> None:
        """Refuse a run that asks for nothing, or for what it does not name."""
        if not self.enabled:
            raise ValueError("losses: every loss is null; give at least one")
        if self.unet_geometry is None and (self.kv_metric or self.readout):
            name = "kv_metric" if self.kv_metric else "readout"
            raise ValueError(
                f"losses.{name}: needs losses.unet_geometry, a file that "
                "`python -m distill.unet_geometry --unet ID_OR_DIR --out FILE.safetensors` writes"
            )

    @property
    def enabled(self) -> list[Loss]:
        """The losses that are not null."""
        every: tuple[Loss | None, ...] = (
            self.pooled, self.hidden, self.contrastive, self.affinity, self.alignment, self.empty_prompt,
            self.kv_metric, self.readout, self.translation,
        )  # fmt: skip
        return [loss for loss in every if loss is not None]

    @property
    def uses_pooled(self) -> bool:
        """Whether the projection of the pooled state gets a gradient."""
        return any(isinstance(loss, Pooled | Contrastive | Affinity) for loss in self.enabled)

    @property
    def uses_zh_padding(self) -> bool:
        """Whether full steps need the slots behind the Chinese text: nothing else than these losses looks there."""
        return any(loss is not None and loss.uses_zh_padding for loss in (self.hidden, self.kv_metric, self.readout))

    def terms(self, step: LossInput) -> LossTerms:
        """Every named term of the step, under its schedule."""
        return {
            name: term * loss.schedule.at(step.progress)
            for loss in self.enabled
            for name, term in loss.terms(step).items()
        }


__all__ = [
    "Affinity",
    "Alignment",
    "Contrastive",
    "EmptyPrompt",
    "EmptyPromptStates",
    "Hidden",
    "KvMetric",
    "Loss",
    "LossInput",
    "LossSchedule",
    "LossTerms",
    "LossesConfig",
    "Pooled",
    "Readout",
    "Translation",
]
