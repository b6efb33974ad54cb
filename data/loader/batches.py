"""Training batches as a pure function of (seed, step): a run resumes from an integer, on any number of ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from data.loader.mixture import DomainCounts, MixtureStage, StagedCounts, permuted_rows
from data.loader.token_store import VIEWS, DomainTokens, TokenIds


@dataclass(frozen=True)
class Vocabulary:
    """Special ids and maximum length of one tower's tokenizer."""

    pad_id: int
    eos_id: int
    max_length: int


@dataclass(frozen=True)
class TokenBatch:
    """One rank's share of a step; every tensor is int64 [pairs, length], padded with the tower's padding id."""

    teacher_en: torch.Tensor
    student_en: torch.Tensor
    student_zh: torch.Tensor
    fixed_length: bool
    """Padded to the tower's maximum length, as for a UNet; otherwise to the longest text of the global batch."""
    zh_length: int
    """Longest `student_zh` text of the global batch, in tokens."""
    en_length: int
    """Longest `teacher_en` text of the global batch, in tokens."""
    draw: int
    """A random number of (seed, step), the same on every rank."""


@dataclass(frozen=True)
class BatchSchedule:
    """Size, order and padding of the global batches, the same on every rank."""

    seed: int
    batch_size: int
    """Pairs in a step, over all ranks."""
    window: int
    """Steps whose pairs are drawn together, sorted by length and cut into batches, so that a batch pads little."""
    full_share: float
    """Share of steps that are padded to the maximum length."""


class BatchDataset:
    """The batches of one rank."""

    def __init__(
        self,
        domains: Mapping[str, DomainTokens],
        stages: Sequence[MixtureStage],
        schedule: BatchSchedule,
        teacher: Vocabulary,
        student: Vocabulary,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Sample from `domains` by `stages` of shares; the global batch must divide among the ranks.

        A stage begins with its step, but inside the window of that step pairs of both mixtures are sorted together.
        """
        if schedule.batch_size % ranks:
            raise ValueError(f"train.batch_size: {schedule.batch_size} pairs do not divide among {ranks} processes")
        names = sorted({name for stage in stages for name in stage.shares})
        self._domains = [domains[name] for name in names]
        self._domain_counts = StagedCounts(
            [stage.start * schedule.batch_size for stage in stages],
            [DomainCounts([stage.shares.get(name, 0) for name in names]) for stage in stages],
        )
        self._schedule, self._rank, self._ranks = schedule, rank, ranks
        self._vocabularies = {view: teacher if view == "teacher_en" else student for view in VIEWS}
        self._window = lru_cache(maxsize=2)(self._sample_window)

    def __getitem__(self, step: int) -> TokenBatch:
        """The batch of `step`, counted from 0."""
        window, index = divmod(step, self._schedule.window)
        domain, row = self._window(window)[index]
        fixed_length = self._is_fixed_length(step)
        # Consecutive rows, so that every n-th pair of a rank's share is every n-th of the batch.
        pairs_per_rank = self._schedule.batch_size // self._ranks
        rank_rows = slice(self._rank * pairs_per_rank, (self._rank + 1) * pairs_per_rank)
        longest = {view: int(self._lengths(view, domain, row).max()) for view in VIEWS}
        for code in np.unique(domain[rank_rows]):
            for view in VIEWS:
                self._domains[code].read_ahead(view, row[rank_rows][domain[rank_rows] == code])
        views = []
        for view in VIEWS:
            ids, vocabulary = self._gather(view, domain[rank_rows], row[rank_rows]), self._vocabularies[view]
            views.append(
                torch.from_numpy(ids.pad(vocabulary.pad_id, vocabulary.max_length if fixed_length else longest[view]))
            )
        draw = int(np.random.SeedSequence([self._schedule.seed, step]).generate_state(1)[0])
        teacher_en, student_en, student_zh = views
        return TokenBatch(
            teacher_en, student_en, student_zh, fixed_length, longest["student_zh"], longest["teacher_en"], draw
        )

    def _is_fixed_length(self, step: int) -> bool:
        """Max-length steps are evenly spaced: the k-th comes where step * share first reaches k."""
        share = self._schedule.full_share
        return int((step + 1) * share) > int(step * share)

    def _lengths(self, view: str, domain: np.ndarray, row: np.ndarray) -> np.ndarray:
        lengths = np.empty(len(row), dtype=np.int64)
        for code in np.unique(domain):
            where = domain == code
            lengths[where] = self._domains[code].lengths(view, row[where])
        return lengths

    def _gather(self, view: str, domain: np.ndarray, row: np.ndarray) -> TokenIds:
        out: list[np.ndarray] = [np.empty(0, np.int32)] * len(row)
        for code in np.unique(domain):
            where = np.flatnonzero(domain == code)
            for place, ids in zip(where.tolist(), self._domains[code].gather(view, row[where]), strict=True):
                out[place] = ids
        return TokenIds(np.concatenate(out), np.fromiter(map(len, out), dtype=np.int64, count=len(out)))

    def _sample_window(self, window: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The batches of a window: for each, the domain code and the row of every pair."""
        pairs = self._schedule.batch_size * self._schedule.window
        starts, stops = self._domain_counts.first(pairs * window), self._domain_counts.first(pairs * (window + 1))
        domain = np.repeat(np.arange(len(self._domains)), stops - starts)
        row = np.concatenate(
            [
                permuted_rows(len(tokens), int(start), int(stop - start), key=self._schedule.seed * 1009 + code)
                for code, (tokens, start, stop) in enumerate(zip(self._domains, starts, stops, strict=True))
            ]
        )
        rng = np.random.default_rng([self._schedule.seed, window])
        shuffled = rng.permutation(len(row))  # so that ties in length are not ordered by domain
        domain, row = domain[shuffled], row[shuffled]
        length = np.stack([self._lengths(view, domain, row) for view in ("student_zh", "teacher_en")])
        # By the longer side: measured on real pairs, a batch pads 21 % this way, 37 % when sorted by one side first.
        order = np.lexsort((length.sum(axis=0), length.max(axis=0)))
        cuts = order.reshape(self._schedule.window, self._schedule.batch_size)
        return [(domain[cuts[k]], row[cuts[k]]) for k in rng.permutation(self._schedule.window)]
