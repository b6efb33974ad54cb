"""Shares and the stream of permutations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cli import UserError
from data.loader.mixture import (
    DomainCounts,
    MixtureConfig,
    StageConfig,
    StagedCounts,
    domain_shares,
    limited_shares,
    mixture_stages,
    permuted_rows,
)

SIZES = {"caption": 100, "news": 400, "empty": 0}


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 300), key=st.integers(0, 2**40), epochs=st.integers(1, 3))
def test_every_epoch_is_a_permutation(size: int, key: int, epochs: int) -> None:
    rows = permuted_rows(size, 0, size * epochs, key).reshape(epochs, size)
    assert (np.sort(rows, axis=1) == np.arange(size)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10**6), st.lists(st.integers(0, 200), min_size=1, max_size=6))
def test_any_cut_gives_the_same_stream(size: int, start: int, counts: list[int]) -> None:
    whole = permuted_rows(size, start, sum(counts), key=7)
    parts = [permuted_rows(size, start + sum(counts[:i]), count, key=7) for i, count in enumerate(counts)]
    assert (np.concatenate(parts) == whole).all()


def test_epochs_and_keys_differ_and_nothing_is_in_order() -> None:
    first, second = permuted_rows(1000, 0, 2000, key=0).reshape(2, 1000)
    other = permuted_rows(1000, 0, 1000, key=1)
    for a, b in ((first, second), (first, other), (first, np.arange(1000)), (first[1:], first[:-1] + 1)):
        assert (a == b).sum() < 20
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.15


def test_stages_follow_each_other() -> None:
    config = MixtureConfig({"news": 1}, stages=[StageConfig(from_step=100, weights={"caption": 1, "news": 3})])
    found = mixture_stages(SIZES, config, 200, 1)
    assert [(stage.start, stage.shares) for stage in found] == [
        (0, {"news": 1}),
        (100, {"caption": 0.25, "news": 0.75}),
    ]
    quota = StagedCounts([0, 100], [DomainCounts([0, 1]), DomainCounts([0.25, 0.75])])
    assert quota.first(60).tolist() == [0, 60]
    assert quota.first(100).tolist() == [0, 100]
    assert quota.first(500).tolist() == pytest.approx([100, 400], abs=2)
    assert (quota.first(500) >= quota.first(499)).all()


def test_stages_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="from_step 0 is not above 0"):
        StageConfig(from_step=0)
    with pytest.raises(ValueError, match=r"from_step \[5, 5\] does not rise"):
        MixtureConfig(stages=[StageConfig(from_step=5), StageConfig(from_step=5)])


def test_large_domains_far_into_the_stream() -> None:
    rows = permuted_rows(150_000_000, 10**11, 1000, key=3)
    assert rows.min() >= 0
    assert rows.max() < 150_000_000
    assert len(np.unique(rows)) == 1000


def test_shares_by_temperature() -> None:
    """Square roots 10 and 20; at 1 the sizes themselves; an empty domain is never drawn."""
    assert domain_shares(SIZES, MixtureConfig()) == pytest.approx({"caption": 1 / 3, "news": 2 / 3})
    assert domain_shares(SIZES, MixtureConfig(temperature=1)) == pytest.approx({"caption": 0.2, "news": 0.8})


def test_shares_by_weight() -> None:
    """Normalised; a weight of nothing, and a domain that is not named, are not drawn."""
    assert domain_shares(SIZES, MixtureConfig({"news": 3, "caption": 1})) == {"caption": 0.25, "news": 0.75}
    assert domain_shares(SIZES, MixtureConfig({"news": 3, "caption": 0})) == {"news": 1}


@pytest.mark.parametrize("name", ["poetry", "empty"])
def test_a_weight_for_a_domain_without_rows_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.mixture\.weights\.{name}: .* it has caption, empty, news"):
        domain_shares(SIZES, MixtureConfig({"news": 1, name: 1}))


@pytest.mark.parametrize("values", [{"temperature": 0}, {"weights": {}}, {"weights": {"a": -1, "b": 2}}])
def test_a_mixture_that_draws_nothing_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"data\.mixture\."):
        MixtureConfig(**values)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=9), st.lists(st.integers(0, 3_000_000), min_size=2))
def test_quota_keeps_shares_over_any_stretch(weights: list[float], marks: list[int]) -> None:
    """All pairs are given out, none is taken back, and no domain falls behind by more than a few."""
    share = np.array(weights) / sum(weights)
    quota = DomainCounts(share.tolist())
    taken = np.array([quota.first(mark) for mark in sorted(marks)])
    assert (taken.sum(axis=1) == sorted(marks)).all()
    steps = np.diff(taken, axis=0)
    assert (steps >= 0).all()
    assert np.abs(steps - np.diff(sorted(marks))[:, None] * share).max() < 12


def test_a_small_domain_is_capped() -> None:
    """1,000 steps of 10 pairs: 10 epochs of 6 prompts are 60 pairs, 0.6 %; the others keep their proportion."""
    sizes = {"caption": 8000, "news": 4000, "prompt": 6}
    config = MixtureConfig({"caption": 3, "news": 2, "prompt": 5})
    (stage,) = mixture_stages(sizes, config, 1000, 10)
    assert stage.shares == pytest.approx({"caption": 0.5964, "news": 0.3976, "prompt": 0.006})
    free = MixtureConfig({"caption": 3, "news": 2, "prompt": 5}, max_epochs=None)
    assert mixture_stages(sizes, free, 1000, 10)[0].shares == {"caption": 0.3, "news": 0.2, "prompt": 0.5}
    with pytest.raises(ValueError, match=r"data\.mixture\.max_epochs: 0 is not above 0"):
        MixtureConfig(max_epochs=0)


def test_a_corpus_that_is_repeated_more_often_is_drawn_evenly() -> None:
    (stage,) = mixture_stages({"caption": 30, "prompt": 10}, MixtureConfig(temperature=5), 1000, 10)
    assert stage.shares == pytest.approx({"caption": 0.75, "prompt": 0.25})


def test_stages_share_the_epochs_of_a_domain() -> None:
    """Prompts in the last 100 of 1,000 steps alone may be drawn there as often as in all of a run."""
    stages = [StageConfig(from_step=900, weights={"caption": 1, "prompt": 1}), StageConfig(from_step=2000)]
    found = mixture_stages({"caption": 8000, "prompt": 6}, MixtureConfig({"caption": 1}, stages=stages), 1000, 10)
    assert [each.shares.get("prompt", 0) for each in found[:2]] == pytest.approx([0, 0.06])
    both = MixtureConfig({"caption": 1, "prompt": 1}, stages=stages)
    found = mixture_stages({"caption": 8000, "prompt": 6}, both, 1000, 10)
    assert [each.shares["prompt"] for each in found[:2]] == pytest.approx([0.006, 0.006])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 2)), min_size=1, max_size=6))
def test_limited_shares_sum_to_one(pairs: list[tuple[float, float]]) -> None:
    total = sum(share for share, _ in pairs)
    shares = {str(n): share / total for n, (share, _) in enumerate(pairs)}
    limits = {str(n): limit for n, (_, limit) in enumerate(pairs)}
    found = limited_shares(shares, limits)
    assert sum(found.values()) == pytest.approx(1)
    if sum(limits.values()) >= 1:
        assert all(share <= limits[domain] + 1e-9 for domain, share in found.items())
        assert all(share >= shares[domain] - 1e-9 for domain, share in found.items() if share < limits[domain] - 1e-9)
