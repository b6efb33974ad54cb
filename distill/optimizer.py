"""AdamW over the weights that train."""

import re
from collections.abc import Mapping

import torch
from torch import nn

from distill.config import TrainConfig
from distill.rate import rate

_EMBEDDING = re.compile(r"\.(token_embedding|word_embeddings)\.")  # CLIP's, BERT's


def make_optimizer(weights: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with a rate of its own for the embedding: its rows see few tokens each."""
    groups = [
        {"params": [w for n, w in weights.items() if bool(_EMBEDDING.search(n)) is rows], "lr": peak, "peak": peak}
        for rows, peak in ((False, config.lr), (True, config.embedding_lr))
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> None:
    """Give every group its rate of `step`."""
    share = rate(step, config.steps, config.warmup, config.final_lr)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
