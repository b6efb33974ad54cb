"""A corpus read for its vocabulary: dictionary rows, fertility of a tokenizer; embeddings of the same text."""

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


def rows_of_same_text(
    texts: Mapping[int, str], teacher_tokenizer: PreTrainedTokenizerFast, embedding: torch.Tensor
) -> dict[int, torch.Tensor]:
    """The mean of the teacher's rows [width] of each text, by its key; texts without a token are left out.

    `embedding` [vocabulary, width] is the teacher's.
    """
    ids = teacher_tokenizer([*texts.values()], add_special_tokens=False)["input_ids"] if texts else []
    return {token: embedding[row].mean(dim=0) for token, row in zip(texts, ids, strict=True) if row}


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
