"""Sampling order: an endless stream of rows over domains, a pure function of (seed, position)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data.cli import UserError


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The share of each domain from a step on; the fields are those of MixtureConfig."""

    from_step: int
    weights: dict[str, float] | None = None
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.from_step < 1:
            raise ValueError(f"data.mixture.stages: from_step {self.from_step} is not above 0")
        _check(self.weights, self.temperature, "data.mixture.stages")


@dataclass(frozen=True)
class MixtureConfig:
    """The share of each domain in what is sampled."""

    weights: dict[str, float] | None = None
    """Share of each domain, normalised to one; None: by temperature over the domains' sizes."""
    temperature: float = 2.0
    """Shares proportional to size ** (1 / temperature): 1 follows the sizes, more evens them out."""
    stages: list[StageConfig] = field(default_factory=list)
    """Other mixtures from later steps on, in the order of their steps."""
    max_epochs: float | None = 10.0
    """Most times that the run draws each row of a domain; what is above goes to the other domains. Where the whole
    corpus is drawn more often, all domains are drawn as often as it. null: shares stay as they are."""

    def __post_init__(self) -> None:
        _check(self.weights, self.temperature, "data.mixture")
        if self.max_epochs is not None and self.max_epochs <= 0:
            raise ValueError(f"data.mixture.max_epochs: {self.max_epochs} is not above 0")
        steps = [stage.from_step for stage in self.stages]
        if any(late <= early for early, late in pairwise(steps)):
            raise ValueError(f"data.mixture.stages: from_step {steps} does not rise")


def _check(weights: dict[str, float] | None, temperature: float, where: str) -> None:
    if temperature <= 0:
        raise ValueError(f"{where}.temperature: {temperature} is not above 0")
    if weights is not None and (min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0):
        raise ValueError(f"{where}.weights: need shares >= 0 of which one is above 0")


@dataclass(frozen=True)
class MixtureStage:
    """Shares from step `start` until the next stage."""

    start: int
    shares: Mapping[str, float]


def mixture_stages(sizes: Mapping[str, int], config: MixtureConfig, steps: int, batch_size: int) -> list[MixtureStage]:
    """The stages of a run of `steps`, the first from step 0; `sizes` counts the rows of each domain."""
    starts = [0, *(stage.from_step for stage in config.stages)]
    configs: list[MixtureConfig | StageConfig] = [config, *config.stages]
    shares = [domain_shares(sizes, each) for each in configs]
    if config.max_epochs is not None:
        bounds = [min(step, steps) for step in (*starts, steps)]
        pairs = [batch_size * (stop - start) for start, stop in pairwise(bounds)]
        # A domain's rows are shared among the stages that draw it.
        drawn = {domain: sum(n for n, each in zip(pairs, shares, strict=True) if domain in each) for domain in sizes}
        limits = {domain: config.max_epochs * sizes[domain] / n for domain, n in drawn.items() if n}
        shares = [limited_shares(each, limits) if n else each for n, each in zip(pairs, shares, strict=True)]
    return [MixtureStage(start, each) for start, each in zip(starts, shares, strict=True)]


def limited_shares(shares: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """`shares` with none above its limit, the excess given to the others in proportion; both sum to 1.

    Where the limits sum to less than 1, the shares are in proportion to them.
    """
    limited = dict[str, float]()
    while True:
        free = {domain: share for domain, share in shares.items() if domain not in limited}
        if not free:
            total = sum(limited.values())
            return {domain: limited[domain] / total for domain in shares}
        scale = (1 - sum(limited.values())) / sum(free.values())
        above = {domain: limits[domain] for domain, share in free.items() if share * scale > limits[domain]}
        if not above:
            return {domain: limited.get(domain, share * scale) for domain, share in shares.items()}
        limited |= above


def domain_shares(sizes: Mapping[str, int], config: MixtureConfig | StageConfig) -> dict[str, float]:
    """The share of every sampled domain, summing to 1; `sizes` counts the rows of each domain."""
    if config.weights is None:
        weights = {domain: size ** (1 / config.temperature) for domain, size in sizes.items() if size}
    else:
        missing = sorted(domain for domain in config.weights if not sizes.get(domain))
        if missing:
            raise UserError(
                f"data.mixture.weights.{missing[0]}: the corpus has no such domain; it has {', '.join(sorted(sizes))}"
            )
        weights = {domain: weight for domain, weight in config.weights.items() if weight > 0}
    total = sum(weights.values())
    return {domain: weights[domain] / total for domain in sorted(weights)}


_PERIOD = 1 << 20  # pairs after which the order of domains repeats; shares are exact to one in as many
_BLOCK = 1 << 12  # pairs between stored cumulative counts
_STRIDE = 648_055  # odd, and _PERIOD over the golden ratio: multiples of it fill the period evenly


class DomainCounts:
    """Pairs of each domain among the first n of the stream, a pure function of n."""

    def __init__(self, shares: Sequence[float]) -> None:
        """Lay out one period; in any stretch, every domain has its share to within a few pairs."""
        edges = np.round(np.cumsum(shares) * _PERIOD).astype(np.int64)
        edges[-1] = _PERIOD
        lattice = np.arange(_PERIOD, dtype=np.int64) * _STRIDE % _PERIOD
        self._domain = np.searchsorted(edges, lattice, side="right").astype(np.uint16)
        self._domains = len(edges)
        blocks = self._domain.reshape(-1, _BLOCK).astype(np.int64) + np.arange(_PERIOD // _BLOCK)[:, None] * len(edges)
        counts = np.bincount(blocks.ravel(), minlength=_PERIOD // _BLOCK * len(edges)).reshape(-1, len(edges))
        self._before = np.concatenate([np.zeros((1, len(edges)), np.int64), np.cumsum(counts, axis=0)])

    def first(self, pairs: int) -> NDArray[np.int64]:
        """Pairs of each domain among the first `pairs`, int64 [domains]; never falls as `pairs` grows."""
        periods, rest = divmod(pairs, _PERIOD)
        return periods * self._count(_PERIOD) + self._count(rest)

    def _count(self, pairs: int) -> NDArray[np.int64]:
        block = pairs // _BLOCK
        rest = np.bincount(self._domain[block * _BLOCK : pairs], minlength=self._domains)
        return np.asarray(self._before[block] + rest)


class StagedCounts:
    """DomainCounts of the stages of a mixture, one after the other."""

    def __init__(self, starts: Sequence[int], counts: Sequence[DomainCounts]) -> None:
        """Stage k has the pairs from `starts[k]` to `starts[k + 1]`; the first start is 0."""
        self._stages = list(zip(starts, [*starts[1:], None], counts, strict=True))

    def first(self, pairs: int) -> NDArray[np.int64]:
        """Pairs of each domain among the first `pairs`, int64 [domains]; never falls as `pairs` grows."""
        inside = [(counts, (pairs if end is None else min(pairs, end)) - start) for start, end, counts in self._stages]
        return np.asarray(np.sum([counts.first(number) for counts, number in inside if number >= 0], axis=0))


@np.errstate(over="ignore")
def permuted_rows(size: int, start: int, count: int, key: int) -> NDArray[np.int64]:
    """Rows at positions start .. start+count of an endless stream of permutations of `size` rows, int64 [count].

    Every epoch has its own permutation, computed without storing it: a Feistel network over the smallest even number of
    bits that holds `size`, applied until the value is below `size` (cycle walking; Black and Rogaway, 2002).
    """
    position = np.arange(start, start + count, dtype=np.int64)
    epoch, value = np.divmod(position, size)
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = [
        _splitmix64(epoch.astype(np.uint64) * np.uint64(4) + np.uint64(r) + _splitmix64(np.uint64(key)))
        for r in range(4)
    ]
    value = value.astype(np.uint64)
    outside = np.arange(count)
    while len(outside):
        left, right = value[outside] >> half, value[outside] & mask
        for round_keys in keys:
            left, right = right, left ^ (_splitmix64(right + round_keys[outside]) & mask)
        value[outside] = (left << half) | right
        outside = outside[value[outside] >= np.uint64(size)]
    return value.astype(np.int64)


def _splitmix64(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every bit of the input reaches every bit of the output."""
    hashed = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(hashed ^ (hashed >> np.uint64(31)))
