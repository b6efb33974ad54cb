"""First rows for new tokens: the teacher's English rows that each token is a translation of, found in the pairs.

IBM model 1 (Brown et al., 1993) by expectation maximisation: in a pair, each English token is the translation of one of
the Chinese tokens or of none, and t(e | z) is the share of English token e among the translations of z. The first row
of z is the mean of the teacher's rows under t(e | z) ** 2, which leaves out what stands in every sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.jit import njit
from data.loader.mixture import permuted_rows
from data.loader.token_store import DomainTokens

_PAIRS = 200_000  # of each domain
_LONGEST = 24  # tokens, start and end included: the work grows with the product of both sides
_ROUNDS = 5
_KEY = 1  # of the permutation that picks the pairs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sentences:
    """Token sequences without start and end token, end to end."""

    tokens: Ints
    lengths: Ints

    @classmethod
    def of(cls, sequences: list[NDArray[np.int64]]) -> "Sentences":
        """Join `sequences`."""
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        return cls(np.concatenate([np.empty(0, np.int64), *sequences]), lengths)


@dataclass(frozen=True)
class Translations:
    """The probability t(english | chinese) of every pair of tokens that occur together, [entries] each."""

    chinese: Ints
    english: Ints
    probability: Floats


def sample_sentences(domains: Mapping[str, DomainTokens], row_of_id: Ints) -> tuple[Sentences, Sentences]:
    """Chinese and English sides of up to `_PAIRS` pairs a domain; Chinese as rows of the embedding, each row once."""
    chinese, english = list[Ints](), list[Ints]()
    for _, domain in sorted(domains.items()):
        rows = permuted_rows(len(domain), 0, min(len(domain), _PAIRS), _KEY)
        lengths = np.stack([domain.lengths(view, rows) for view in ("student_zh", "teacher_en")])
        rows = np.sort(rows[(lengths.min(axis=0) > 2) & (lengths.max(axis=0) <= _LONGEST)])
        chinese += [np.unique(row_of_id[ids[1:-1]]) for ids in domain.gather("student_zh", rows)]
        english += [ids[1:-1].astype(np.int64) for ids in domain.gather("teacher_en", rows)]
    return Sentences.of(chinese), Sentences.of(english)


def align(chinese: Sentences, english: Sentences, num_rows: int, num_english: int) -> Translations:
    """t(e | z) over sentences that are translations of each other, after `_ROUNDS` rounds from equal shares.

    `chinese` holds ids below `num_rows`, `english` below `num_english`. What no Chinese token explains is left to none,
    which is no entry of the result.
    """
    keys = _pairs_of_tokens(*_arrays(chinese), *_arrays(english), num_rows, num_english)
    entries, entry = np.unique(keys, return_inverse=True)
    source, target = np.divmod(entries, num_english)
    counts: Floats = np.ones(len(entries))
    for _ in range(_ROUNDS):
        share = counts / np.bincount(source, counts, minlength=num_rows + 1)[source]
        counts = _expected_counts(chinese.lengths, english.lengths, entry, share)
    share = counts / np.maximum(np.bincount(source, counts, minlength=num_rows + 1)[source], np.finfo(float).tiny)
    known = source < num_rows
    return Translations(source[known], target[known], share[known])


def _arrays(sentences: Sentences) -> tuple[Ints, Ints]:
    return sentences.tokens, sentences.lengths


@njit
def _pairs_of_tokens(
    chinese: Ints, num_chinese: Ints, english: Ints, num_english: Ints, none: int, vocabulary: int
) -> Ints:
    """z * vocabulary + e for each English token of a pair and each Chinese one, `none` last; int64 [cells]."""
    keys = np.empty(((num_chinese + 1) * num_english).sum(), np.int64)
    cell, first_chinese, first_english = 0, 0, 0
    for pair in range(len(num_chinese)):
        for e in range(num_english[pair]):
            for z in range(num_chinese[pair] + 1):
                row = chinese[first_chinese + z] if z < num_chinese[pair] else none
                keys[cell] = row * vocabulary + english[first_english + e]
                cell += 1
        first_chinese += num_chinese[pair]
        first_english += num_english[pair]
    return keys


@njit
def _expected_counts(num_chinese: Ints, num_english: Ints, entry: Ints, share: Floats) -> Floats:
    """How often each entry is the translation, float64 [entries]: an English token is one whole, split by `share`."""
    counts: Floats = np.zeros(len(share))
    cell = 0
    for pair in range(len(num_chinese)):
        for _ in range(num_english[pair]):
            stop = cell + num_chinese[pair] + 1
            whole = 0.0
            for k in range(cell, stop):
                whole += share[entry[k]]
            for k in range(cell, stop):
                counts[entry[k]] += share[entry[k]] / whole
            cell = stop
    return counts


def first_rows(domains: Mapping[str, DomainTokens], row_of_id: Ints, teacher: torch.Tensor, start: int) -> torch.Tensor:
    """First embeddings [rows - start, width] of the student's rows from `start` on; `teacher` [vocabulary, width].

    `row_of_id` maps the student's token ids to rows. Rows have the mean and the spread of the teacher's; those that no
    pair translates are drawn at random.
    """
    chinese, english = sample_sentences(domains, row_of_id)
    num_rows, mean, deviation = int(row_of_id.max()) + 1, teacher.mean(dim=0), teacher.std(dim=0)
    generator = torch.Generator().manual_seed(_KEY)
    rows = mean + deviation * torch.randn(num_rows - start, teacher.shape[1], generator=generator)
    found = align(chinese, english, num_rows, len(teacher))
    new = found.chinese >= start
    places = torch.from_numpy(np.stack([found.chinese[new] - start, found.english[new]]))
    values, shape = torch.from_numpy(found.probability[new]).float() ** 2, (len(rows), len(teacher))
    weights = torch.sparse_coo_tensor(places, values, shape, check_invariants=True)
    mass = torch.sparse.sum(weights, dim=1).to_dense()
    known = mass > 0
    if known.any():
        means = (torch.sparse.mm(weights, teacher) / mass[:, None])[known]
        spread = means.std(dim=0, correction=0).clamp(min=torch.finfo(means.dtype).tiny)
        rows[known] = (means - means.mean(dim=0)) / spread * deviation + mean
    return rows
