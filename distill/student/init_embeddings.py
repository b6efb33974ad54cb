"""First rows for new tokens: the mean teacher embedding of what the corpus says a word means."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import torch
from transformers import PreTrainedTokenizerFast

from distill.student.tokenizer import normalization_map

_LONGEST_WORD = 8
_MAX_TRANSLATIONS = 4  # a word's first senses; later ones are rare and blur the mean


def read_dictionary(corpus: Path) -> dict[str, list[str]]:
    """English of every Chinese word that stands alone as a pair (dictionary entries, tags, class names), in order."""
    rows = pa.dataset.dataset(sorted((corpus / "train").glob("*.parquet")), format="parquet")
    is_word = pc.match_substring_regex(pc.field("zh"), rf"^\p{{Han}}{{1,{_LONGEST_WORD}}}$")
    entries = rows.to_table(columns=["en", "zh"], filter=is_word)  # filtered as it is read: corpora are large
    translations: dict[str, list[str]] = {}
    for en, zh in zip(entries["en"].to_pylist(), entries["zh"].to_pylist(), strict=True):
        translations.setdefault(zh.translate(normalization_map()), []).append(en)
    return {word: english[:_MAX_TRANSLATIONS] for word, english in translations.items()}


def embeddings_from_translations(
    token_texts: Mapping[int, str],
    translations: Mapping[str, list[str]],
    teacher_tokenizer: PreTrainedTokenizerFast,
    embedding: torch.Tensor,
) -> dict[int, torch.Tensor]:
    """A first row [width] for each new token: its gloss, else the mean of its characters' glosses.

    `surfaces` maps the token's id to its text and `embedding` [vocabulary, width] is the teacher's. A token without
    any known part is left out.
    """
    words = sorted({part for surface in token_texts.values() for part in (surface, *surface)} & translations.keys())
    texts = [sense for word in words for sense in translations[word]]
    ids = teacher_tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    means = np.array(
        [embedding[row].mean(dim=0).numpy() if row else np.full(embedding.shape[1], np.nan) for row in ids]
    )
    meaning: dict[str, torch.Tensor] = {}
    start = 0
    for word in words:
        stop = start + len(translations[word])
        known = means[start:stop][~np.isnan(means[start:stop, 0])]
        if len(known):
            meaning[word] = torch.from_numpy(known.mean(axis=0))
        start = stop
    rows = {}
    for token, surface in token_texts.items():
        if surface in meaning:
            rows[token] = meaning[surface]
        elif parts := [meaning[character] for character in surface if character in meaning]:
            rows[token] = torch.stack(parts).mean(dim=0)
    return rows
