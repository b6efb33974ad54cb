"""A source is read as fast as it is cleaned and written, never whole into memory."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from data.build import scoring
from data.build.scoring import scored_batches
from data.clean.scores import References
from data.sources.base import FileSource, raw_batch
from data.sources.io import TEXT

BATCH, BATCHES = 256, 120


@dataclass(frozen=True, kw_only=True)
class Endless(FileSource):
    """Batches of the same pair; `lead` notes how far the reader was ahead at each."""

    lead: list[int] = field(default_factory=list)

    def read_file(self, root: str, path: str, index: int) -> Iterator[pa.RecordBatch]:
        for number in range(BATCHES):
            self.lead.append(number * BATCH - scoring.consumed_rows[self.name])
            column = pa.array([f"{path} {number}"] * BATCH, TEXT)
            yield raw_batch(column, column, index, np.arange(BATCH) + number * BATCH)


def test_the_reader_waits_for_what_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_READAHEAD", 16 * BATCH)
    source = Endless(name="endless", domain="general", license="CC0", files=("a",))
    count = 0
    for batch in scored_batches(source, "", References(None, "", needs_signatures=False)):
        count += batch.num_rows
        time.sleep(0.01)
    assert count == BATCH * BATCHES
    assert max(source.lead) <= 17 * BATCH
    assert source.name not in scoring.consumed_rows
