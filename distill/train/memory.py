"""Expected peak memory of a training process, from configuration and shape.

The bytes that a tower and the losses keep for the backward pass are exact for fused attention (tested against what
autograd saves); what kernels need while they run is an allowance.
"""

from dataclasses import dataclass
from typing import Any

from distill.losses import LossesConfig
from distill.losses.translation import TRANSLATION_BYTES
from distill.losses.unet import READOUT_BYTES
from distill.train.config import RunConfig

_OVERHEAD = 1_000_000_000  # CUDA context, allocator


@dataclass(frozen=True)
class TowerShape:
    """Sizes of a CLIP text tower, and its numbers of weights as a teacher and as a student."""

    width: int
    layers: int
    mlp: int
    heads: int
    quick_gelu: bool
    max_length: int
    teacher_weights: int
    student_weights: int
    trained_weights: int


def tower_shape(config: Any, teacher_weights: int, student_weights: int, trained_weights: int) -> TowerShape:  # noqa: ANN401
    """The shape of a transformers config of a CLIP text tower."""
    return TowerShape(
        config.hidden_size, config.num_hidden_layers, config.intermediate_size, config.num_attention_heads,
        config.hidden_act == "quick_gelu", config.max_position_embeddings,
        teacher_weights, student_weights, trained_weights,
    )  # fmt: skip


def layer_products(shape: TowerShape) -> int:
    """Weights of the matrix products of one layer."""
    return 4 * shape.width**2 + 2 * shape.width * shape.mlp


def tower_bytes(shape: TowerShape, tokens: int, bf16: bool, recompute: bool) -> int:
    """Bytes that the layers of a tower keep for the backward pass of `tokens` positions."""
    width, mlp, layers = shape.width, shape.mlp, shape.layers
    statistics = 16 + 4 * shape.heads  # of two norms and of the attention, float32
    if bf16:
        # Inputs of the norms in float32; inputs and outputs of q, k and v, attention and the MLP in bf16.
        layer, casts = 24 * width + 4 * mlp + statistics, 2 * layer_products(shape)
    else:
        layer, casts = 32 * width + 8 * mlp + statistics, 8 * width * mlp if shape.quick_gelu else 0
    kept_layers = 1 if recompute else layers
    inputs = 4 * width * layers if recompute else 0
    return tokens * (layer * kept_layers + inputs + 4 * width) + casts * kept_layers


def loss_bytes(losses: LossesConfig, rows: int, english_rows: int, length: int, width: int, all_rows: int) -> int:
    """Bytes that the losses keep for the backward pass of a max-length step."""
    chinese, english = (4 * count * length * width for count in (rows, english_rows))
    kept = 0
    if hidden := losses.hidden:
        terms = sum(weight > 0 for weight in (hidden.cosine, hidden.l1, hidden.l2))
        kept += terms * (english * (hidden.english > 0) + chinese * (hidden.chinese > 0))
    if losses.alignment:
        kept += 4 * rows * (length - 1) * (width + length - 1)
    if kv_metric := losses.kv_metric:
        terms = 2 if losses.unet_geometry else 1
        kept += terms * (english * (kv_metric.english > 0) + chinese * (kv_metric.chinese_padding > 0))
    if losses.readout:
        kept += READOUT_BYTES
    if losses.translation:
        kept += TRANSLATION_BYTES
    if losses.contrastive:
        kept += 9 * rows * all_rows
    if losses.affinity:
        kept += 8 * rows * all_rows
    if similarity := losses.similarity:
        used = rows * (similarity.chinese > 0) + english_rows * (similarity.english > 0)
        kept += 8 * used * (all_rows + similarity.anchors)
    return kept


@dataclass(frozen=True)
class FirstShape:
    """SDXL's first encoder beside the second: weights of its teacher and student, width, numbers of the geometry."""

    weights: int
    width: int
    geometry: int

    def num_bytes(self, positions: int) -> int:
        """Bytes of all that is kept for a step of so many positions, of student and teacher each."""
        return 4 * (self.weights + self.geometry + 2 * positions * self.width)


def expected_memory(
    shape: TowerShape, config: RunConfig, processes: int, first: FirstShape | None = None
) -> dict[str, int]:
    """Bytes of a process by what they hold, and their sum as `peak`; `train.precision` is resolved."""
    train, losses = config.train, config.losses
    rows = train.batch_size // processes
    english_rows = -(-rows // train.english_every)
    positions = (rows + english_rows) * shape.max_length
    outputs = 4 * positions * shape.width
    whole = train.tokens_at_once is None or positions <= train.tokens_at_once
    tokens = positions if whole else max(shape.max_length, train.tokens_at_once or 0)
    activations = tower_bytes(shape, tokens, train.precision == "bf16", train.recompute)
    kept = loss_bytes(losses, rows, english_rows, shape.max_length, shape.width, train.batch_size)
    working = 4 * rows * shape.max_length * shape.width
    shards = processes if train.shard else 1
    sent = processes > 1 and not train.shard
    copies = sent * (2 if train.bf16_gradients else 4)  # of gradients on their way to the other processes
    halved = 2 * shape.layers * layer_products(shape) if train.precision == "bf16" else 0
    held = {
        "teacher": 4 * shape.teacher_weights - halved,
        "student": 4 * shape.student_weights // shards,
        "gradients and moments": (12 + copies + (4 if train.ema else 0)) * shape.trained_weights // shards,
        "outputs and their gradients": 3 * outputs,
        # Losses and towers are computed one after the other, unless all positions fit at once.
        "activations": activations + kept + working if whole else max(activations, kept + working),
        "overhead": _OVERHEAD,
    }
    if first:
        held["first encoder and geometry"] = first.num_bytes(positions)
    return {**held, "peak": sum(held.values())}


def memory_line(parts: dict[str, int], tokens_at_once: int | None) -> str:
    """The estimate for the log."""
    details = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in parts.items() if name != "peak")
    budget = "all token positions" if tokens_at_once is None else f"{tokens_at_once:,} token positions"
    return f"expected peak memory of a process: {parts['peak'] / 1e9:.1f} GB with {budget} at once ({details})"
