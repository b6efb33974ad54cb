"""Translations of tokens, found in pairs; first rows made of them."""

from itertools import chain

import numpy as np
import pytest
import torch

from distill.student import word_alignment
from distill.student.word_alignment import Ints, Sentences, align, first_rows

NONE = -1


def _sentences(*texts: list[int]) -> Sentences:
    return Sentences.of([np.array(text, np.int64) for text in texts])


def _by_definition(pairs: list[tuple[list[int], list[int]]], rounds: int) -> dict[tuple[int, int], float]:
    """IBM model 1 from its formulae, by dictionaries."""
    sources = {NONE, *chain.from_iterable(chinese for chinese, _ in pairs)}
    met = {(z, e) for chinese, english in pairs for z in (*chinese, NONE) for e in english}
    share = {(z, e): 1 / sum(source == z for source, _ in met) for z, e in met}
    for _ in range(rounds):
        counts = dict.fromkeys(met, 0.0)
        for chinese, english in pairs:
            for e in english:
                whole = sum(share[z, e] for z in (*chinese, NONE))
                for z in (*chinese, NONE):
                    counts[z, e] += share[z, e] / whole
        totals = {source: sum(count for (z, _), count in counts.items() if z == source) for source in sources}
        share = {(z, e): count / totals[z] for (z, e), count in counts.items()}
    return share


def test_one_round_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs 5 -> 0 and 5 6 -> 0 1, with shares of 1/2 for each translation of 5, 6 and none at the start.

    The first pair gives 5 half of its 0. In the second each token is split in three: 5 -> 0 has 1/2 + 1/3, 5 -> 1 has
    1/3, and both translations of 6 have 1/3.
    """
    monkeypatch.setattr(word_alignment, "_ROUNDS", 1)
    found = align(_sentences([5], [5, 6]), _sentences([0], [0, 1]), num_rows=7, num_english=2)
    shares = dict(zip(zip(found.chinese.tolist(), found.english.tolist(), strict=True), found.probability, strict=True))
    assert shares == {(5, 0): pytest.approx(5 / 7), (5, 1): pytest.approx(2 / 7), (6, 0): 0.5, (6, 1): 0.5}


def test_every_round_as_the_model_is_defined() -> None:
    """Sentences of different lengths, repeated English tokens, and one of no Chinese token that is known."""
    generator = np.random.default_rng(0)
    pairs = [
        (np.unique(generator.integers(6, size=size)).tolist(), generator.integers(5, size=other).tolist())
        for size, other in ((1, 1), (4, 2), (3, 5), (5, 4), (2, 2), (0, 3))
    ]
    found = align(_sentences(*(z for z, _ in pairs)), _sentences(*(e for _, e in pairs)), num_rows=6, num_english=5)
    wanted = {key: share for key, share in _by_definition(pairs, rounds=5).items() if key[0] != NONE}
    places = zip(found.chinese.tolist(), found.english.tolist(), strict=True)
    assert dict(zip(places, found.probability.tolist(), strict=True)) == pytest.approx(wanted, rel=1e-5)


def test_rows_have_mean_and_spread_of_the_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 5 and 6 of three new ones are translated; the third is drawn."""
    teacher = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    sides = _sentences([5], [6]), _sentences([0], [3])

    def sample(domains: object, row_of_id: Ints) -> tuple[Sentences, Sentences]:
        return sides

    monkeypatch.setattr(word_alignment, "sample_sentences", sample)
    rows = first_rows({}, np.arange(8), teacher, start=5)
    assert rows.shape == (3, 3)
    assert torch.allclose(rows[:2].mean(dim=0), teacher.mean(dim=0), atol=1e-6)
    assert torch.allclose(rows[:2].std(dim=0, correction=0), teacher.std(dim=0), atol=1e-6)
    assert torch.allclose((rows[0] - rows[1]).sign(), (teacher[0] - teacher[3]).sign())
    assert rows[2].isfinite().all()
    assert not torch.equal(rows[2], teacher.mean(dim=0))


def test_without_pairs_every_row_is_drawn_and_always_the_same() -> None:
    """So a run that resumes, whose rows come from the checkpoint, reads no pair."""
    teacher = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    rows = first_rows({}, np.arange(2000), teacher, start=2)
    assert torch.equal(rows, first_rows({}, np.arange(2000), teacher, start=2))
    assert rows.mean(dim=0).tolist() == pytest.approx([1.0, 3.0], abs=0.2)
    assert rows.std(dim=0).tolist() == pytest.approx([2**0.5, 8**0.5], abs=0.2)
