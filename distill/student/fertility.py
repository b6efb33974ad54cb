"""Fertility: how many tokens a Chinese character costs, by domain."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from tokenizers import Tokenizer

from distill.student.chinese_bpe import HAN_RUN

_ROWS = 2000  # a domain


def fertility(corpus: Path, tokenizer: Tokenizer) -> Mapping[str, float]:
    """Tokens per Chinese character of each domain, over the Han of its held-out rows, or of its first training rows.

    What is not Han (punctuation, Latin, digits) is taken out first, and start and end marks are not counted.
    """
    held = sorted((corpus / "valid").glob("*.parquet"))
    files = held or sorted((corpus / "train").glob("*.parquet"))
    rows = pa.dataset.dataset(files, format="parquet")
    found = {}
    for domain in sorted(pc.unique(rows.to_table(columns=["domain"])["domain"]).to_pylist()):
        texts = rows.filter(pc.field("domain") == domain).head(_ROWS, columns=["zh"])["zh"].to_pylist()
        runs = ["".join(HAN_RUN.findall(text)) for text in texts]
        if characters := sum(map(len, runs)):
            tokens = sum(len(each.ids) for each in tokenizer.encode_batch_fast(runs, add_special_tokens=False))
            found[domain] = tokens / characters
    return found
