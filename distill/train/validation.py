"""Validation in the loop: bitext retrieval and cosines to the teacher on held-out pairs."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from data.loader.token_store import DomainTokens, TokenIds
from distill.text_tower import EncoderOutput

EncodeFn = Callable[[torch.Tensor], EncoderOutput]
_BATCH = 64  # fits the memory that a training step has freed


def validate(
    domains: Mapping[str, DomainTokens],
    teacher: EncodeFn,
    student: EncodeFn,
    teacher_pad_id: int,
    student_pad_id: int,
    device: torch.device,
    max_rows: int,
) -> dict[str, float]:
    """For each domain's first `max_rows` held-out pairs: `cosine_zh`, `cosine_en` to the teacher, `zh2en` and `en2zh`.

    zh2en is the share of Chinese sentences whose own English is nearest among the domain's by the teacher's embedding;
    en2zh the other way round.
    """
    result = {}
    for name, tokens in domains.items():
        rows = np.arange(min(len(tokens), max_rows))
        if len(rows) < 2:
            continue
        target = _pooled(tokens, "teacher_en", rows, teacher, teacher_pad_id, device)
        english = _pooled(tokens, "student_en", rows, student, student_pad_id, device)
        chinese = _pooled(tokens, "student_zh", rows, student, student_pad_id, device)
        result[f"{name}/cosine_zh"] = (chinese * target).sum(dim=1).mean().item()
        result[f"{name}/cosine_en"] = (english * target).sum(dim=1).mean().item()
        accuracy = bitext_accuracy(chinese @ target.T)
        result |= {f"{name}/{direction}": value for direction, value in accuracy.items()}
    return result


def bitext_accuracy(similarity: torch.Tensor) -> dict[str, float]:
    """Share of rows (`zh2en`) and of columns (`en2zh`) of [n, n] whose largest entry is the diagonal's; ties hit."""
    diagonal = similarity.diagonal()
    return {
        "zh2en": (similarity.max(dim=1).values <= diagonal).float().mean().item(),
        "en2zh": (similarity.max(dim=0).values <= diagonal).float().mean().item(),
    }


@torch.no_grad()
def _pooled(
    tokens: DomainTokens, view: str, rows: np.ndarray, encode: EncodeFn, pad: int, device: torch.device
) -> torch.Tensor:
    """Normalised pooled states [rows, dim] on the CPU, in the order of `rows`; encoded by length to pad little."""
    lengths = tokens.lengths(view, rows)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        ids = TokenIds(np.concatenate(tokens.gather(view, rows[batch])), lengths[batch]).pad(pad)
        batches.append(encode(torch.from_numpy(ids).to(device)).pooled.float().cpu())
    pooled = torch.cat(batches)
    pooled[torch.from_numpy(order)] = pooled.clone()
    return F.normalize(pooled, dim=1)
