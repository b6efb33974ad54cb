"""What the student is asked for: each loss a frozen dataclass that turns a step's states into named terms.

A term is a scalar tensor, already weighted; the loss of a step is the sum of its terms. One file a loss; their
formulae, uses and costs stand in docs/losses.md.
"""

from distill.losses.affinity import Affinity
from distill.losses.alignment import Alignment
from distill.losses.config import Loss, LossesConfig
from distill.losses.contrastive import Contrastive
from distill.losses.empty_prompt import EmptyPrompt
from distill.losses.hidden import Hidden
from distill.losses.kv_metric import KvMetric
from distill.losses.pooled import Pooled
from distill.losses.readout import Readout
from distill.losses.step import Empty, Schedule, Step, Terms
from distill.losses.translation import Translation

__all__ = [
    "Affinity",
    "Alignment",
    "Contrastive",
    "Empty",
    "EmptyPrompt",
    "Hidden",
    "KvMetric",
    "Loss",
    "LossesConfig",
    "Pooled",
    "Readout",
    "Schedule",
    "Step",
    "Terms",
    "Translation",
]
