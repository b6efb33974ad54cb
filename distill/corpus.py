"""The corpus as a run meets it: looked at before anything is written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.command import UserError

_COLUMNS = ("en", "zh", "domain")


def check_corpus(corpus: Path) -> None:
    """Refuse a folder that `python -m data.build` did not write whole, or one without a training row."""
    shards = sorted((corpus / "train").glob("*.parquet"))
    if not shards:
        raise UserError(
            f"data.corpus: {corpus} is no corpus (no train/*.parquet there); "
            f"build one first: python -m data.build CONFIG.yaml --out {corpus}"
        )
    rows = 0
    for shard in [*shards, *sorted((corpus / "valid").glob("*.parquet"))]:
        try:
            with pq.ParquetFile(shard) as file:
                names, found = file.schema_arrow.names, file.metadata.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{shard}: not a readable Parquet file ({error}); build the corpus again") from error
        missing = [column for column in _COLUMNS if column not in names]
        if missing:
            raise UserError(f"{shard}: no column {missing[0]!r}; it has {', '.join(names)}")
        rows += found if shard in shards else 0
    if not rows:
        raise UserError(f"data.corpus: {corpus} has no training rows; its report.json says why each was rejected")
