"""A corpus read for its vocabulary: dictionary rows, initial embeddings of new tokens, fertility of a tokenizer."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from distill.student.chinese_bpe import HAN_RUN, LONGEST_WORD
from distill.student.tokenizer import normalization_map

Translations = Mapping[str, list[str]]
"""English translations by Chinese word."""
_MAX_TRANSLATIONS = 4  # a word's first senses; later ones are rare and blur the mean
_FERTILITY_ROWS = 2000  # a domain


def training_rows(corpus: Path) -> pa.dataset.Dataset:
    """The training split of a corpus."""
    return pa.dataset.dataset(sorted((corpus / "train").glob("*.parquet")), format="parquet")


def is_word(min_length: int) -> pc.Expression:
    """Filter of rows whose Chinese is one word: dictionary entries, tags, class names."""
    return pc.match_substring_regex(pc.field("zh"), rf"^\p{{Han}}{{{min_length},{LONGEST_WORD}}}$")


def chinese_texts(rows: pa.dataset.Dataset, filter_: pc.Expression, share: float) -> Iterator[str]:
    """The Chinese of a random `share` of some rows, the same every time; streamed: a corpus may not fit in memory."""
    random = np.random.default_rng(0)
    for batch in rows.to_batches(columns=["zh"], filter=filter_):
        texts = batch["zh"] if share >= 1 else batch["zh"].filter(pa.array(random.random(len(batch)) < share))
        yield from texts.to_pylist()


def read_dictionary(corpus: Path) -> dict[str, list[str]]:
    """English translations of every Chinese word that is a pair by itself, in corpus order."""
    entries = training_rows(corpus).to_table(columns=["en", "zh"], filter=is_word(1))
    translations: dict[str, list[str]] = {}
    for en, zh in zip(entries["en"].to_pylist(), entries["zh"].to_pylist(), strict=True):
        translations.setdefault(zh.translate(normalization_map()), []).append(en)
    return {word: english[:_MAX_TRANSLATIONS] for word, english in translations.items()}


def embeddings_from_translations(
    token_texts: Mapping[int, str],
    translations: Translations,
    teacher_tokenizer: PreTrainedTokenizerFast,
    embedding: torch.Tensor,
) -> dict[int, torch.Tensor]:
    """An initial row [width] for each new token: its translation's mean embedding, else the mean over its characters.

    `token_texts` maps token ids to texts, `embedding` [vocabulary, width] is the teacher's. Tokens without any
    translated part are left out.
    """
    words = sorted({part for text in token_texts.values() for part in (text, *text)} & translations.keys())
    texts = [translation for word in words for translation in translations[word]]
    ids = teacher_tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    means = np.array(
        [embedding[row].mean(dim=0).numpy() if row else np.full(embedding.shape[1], np.nan) for row in ids]
    )
    by_word: dict[str, torch.Tensor] = {}
    start = 0
    for word in words:
        stop = start + len(translations[word])
        known = means[start:stop][~np.isnan(means[start:stop, 0])]
        if len(known):
            by_word[word] = torch.from_numpy(known.mean(axis=0))
        start = stop
    rows = {}
    for token, text in token_texts.items():
        if text in by_word:
            rows[token] = by_word[text]
        elif known_characters := [by_word[character] for character in text if character in by_word]:
            rows[token] = torch.stack(known_characters).mean(dim=0)
    return rows


def fertility(corpus: Path, tokenizer: Tokenizer) -> Mapping[str, float]:
    """Tokens per Chinese character of each domain, over its held-out rows, or its first training rows.

    Characters that are not Han (punctuation, Latin, digits) are removed first; start and end tokens do not count.
    """
    valid = sorted((corpus / "valid").glob("*.parquet"))
    rows = pa.dataset.dataset(valid, format="parquet") if valid else training_rows(corpus)
    by_domain = {}
    for domain in sorted(pc.unique(rows.to_table(columns=["domain"])["domain"]).to_pylist()):
        texts = rows.filter(pc.field("domain") == domain).head(_FERTILITY_ROWS, columns=["zh"])["zh"].to_pylist()
        runs = ["".join(HAN_RUN.findall(text)) for text in texts]
        if characters := sum(map(len, runs)):
            encodings = tokenizer.encode_batch_fast(runs, add_special_tokens=False)
            by_domain[domain] = sum(len(encoding.ids) for encoding in encodings) / characters
    return by_domain
