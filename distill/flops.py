"""How much arithmetic a step asks for: the matrix products of the towers, and nothing else.

Padding is no work, except where a loss compares all slots. Embeddings, norms, losses and the optimizer count nothing;
a backward pass counts twice its forward pass, and no activation is counted again where it is recomputed.
"""

import torch
from transformers import CLIPTextConfig

from distill.reading import Reading
from distill.states import up_to_end


def tower_flops(shape: CLIPTextConfig, lengths: torch.Tensor) -> float:
    """Of a forward pass over sentences of `lengths` tokens, [sentences]; a multiply and an add are two."""
    width, layers = shape.hidden_size, shape.num_hidden_layers
    a_token = 2 * (4 * width * width + 2 * width * shape.intermediate_size)
    attention = 2 * 2 * width * lengths.square().sum().item()
    pooled = 2 * width * (shape.projection_dim or 0) * len(lengths)
    return float(layers * (a_token * lengths.sum().item() + attention) + pooled)


def step_flops(shape: CLIPTextConfig, reading: Reading, teacher_end: int, student_end: int) -> float:
    """Of one step: the teacher forward, the student forward and backward; both towers are of `shape`."""

    def lengths(ids: torch.Tensor | None, end: int, slots: bool) -> torch.Tensor:
        if ids is None:
            return torch.zeros(0)
        return torch.full((len(ids),), float(ids.shape[1])) if slots else up_to_end(ids, end).sum(dim=1).float()

    cut = reading.teacher_english is not None  # then only every n-th pair has all slots
    whole = reading.full and not cut
    asked = tower_flops(shape, lengths(reading.teacher, teacher_end, whole))
    asked += tower_flops(shape, lengths(reading.teacher_english, teacher_end, True))
    learned = tower_flops(shape, lengths(reading.chinese, student_end, whole))
    learned += tower_flops(shape, lengths(reading.english, student_end, reading.full))
    return asked + 3 * learned


def tokens(reading: Reading, teacher_end: int, student_end: int) -> int:
    """Tokens of text that the towers read."""
    ends = ((reading.chinese, student_end), (reading.english, student_end), (reading.teacher, teacher_end))
    return sum(int(up_to_end(ids, end).sum()) for ids, end in ends)
