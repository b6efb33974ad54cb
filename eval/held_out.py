"""Held-out pairs of a corpus, read from CORPUS/valid."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from data.cli import UserError, one_line

_SCHEMA = pa.schema([(name, pa.string()) for name in ("en", "zh", "domain")])


@dataclass(frozen=True)
class Pairs:
    """Columns of a corpus; a row is a pair."""

    en: list[str]
    zh: list[str]
    domain: list[str]

    def sentences(self, language: str) -> list[str]:
        """The sentences of `language`."""
        return self.zh if language == "zh" else self.en


def load_held_out(corpus: Path, rows: int) -> dict[str, Pairs]:
    """The first `rows` pairs of every domain in CORPUS/valid, by the domain's name."""
    shards = sorted((corpus / "valid").glob("*.parquet"))
    if not shards:
        raise UserError(f"{corpus}: no valid/*.parquet there; build one with python -m data.build")
    table = pa.concat_tables(map(_read_shard, shards))
    domains = {}
    for domain in sorted(pa.compute.unique(table["domain"]).to_pylist()):
        columns = table.filter(pa.compute.equal(table["domain"], domain)).slice(0, rows).to_pydict()
        domains[domain] = Pairs(columns["en"], columns["zh"], columns["domain"])
    return domains


def _read_shard(path: Path) -> pa.Table:
    """en, zh and domain of a shard; UserError where one of them is missing, not text, or holds nulls."""
    try:
        table = pa.parquet.read_table(path, columns=_SCHEMA.names)
        table.validate(full=True)  # Parquet does not promise UTF-8
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable ({one_line(error)}); build the corpus again") from error
    for name in _SCHEMA.names:
        column = table[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or column.null_count:
            kind = f"{column.type} with {column.null_count} nulls"
            raise UserError(f"{path}: column {name!r} is {kind}, not text in every row; build the corpus again")
    return table.cast(_SCHEMA)


def concat_pairs(domains: dict[str, Pairs]) -> Pairs:
    """The pairs of all domains, one after the other."""
    groups = domains.values()
    return Pairs(
        [text for pairs in groups for text in pairs.en],
        [text for pairs in groups for text in pairs.zh],
        [name for pairs in groups for name in pairs.domain],
    )
