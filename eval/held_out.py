"""Held-out pairs of a corpus."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from data.command import UserError


@dataclass(frozen=True)
class Pairs:
    """Sentences column by column."""

    en: list[str]
    zh: list[str]
    domain: list[str]

    def side(self, language: str) -> list[str]:
        """The sentences of `language`."""
        return self.zh if language == "zh" else self.en


def held_out(corpus: Path, rows: int) -> dict[str, Pairs]:
    """The first `rows` pairs of every domain in CORPUS/valid, by the domain's name."""
    shards = sorted((corpus / "valid").glob("*.parquet"))
    if not shards:
        raise UserError(f"{corpus}: no valid/*.parquet there; build one with python -m data.build")
    table = pa.dataset.dataset(shards, format="parquet").to_table(columns=["en", "zh", "domain"])
    found = {}
    for domain in sorted(pa.compute.unique(table["domain"]).to_pylist()):
        some = table.filter(pa.compute.equal(table["domain"], domain)).slice(0, rows).to_pydict()
        found[domain] = Pairs(some["en"], some["zh"], some["domain"])
    return found


def joined(domains: dict[str, Pairs]) -> Pairs:
    """The pairs of all domains, one after the other."""
    every = domains.values()
    return Pairs(
        [text for pairs in every for text in pairs.en],
        [text for pairs in every for text in pairs.zh],
        [name for pairs in every for name in pairs.domain],
    )
