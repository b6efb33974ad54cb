"""A source is read as fast as it is cleaned and written, never whole into memory."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.build import scoring
from data.build.scoring import scored_batches
from data.clean.scores import References
from data.cli import UserError
from data.sources.base import FileSource, raw_batch
from data.sources.io import TEXT
from tests.data.corpora import PAIRS
from tests.data.sources.test_readers import source

BATCH, BATCHES = 256, 120
NO_REFERENCES = References(None, "", needs_signatures=False)


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
    for batch in scored_batches(source, "", NO_REFERENCES):
        count += batch.num_rows
        time.sleep(0.01)
    assert count == BATCH * BATCHES
    assert max(source.lead) <= 17 * BATCH
    assert source.name not in scoring.consumed_rows


LINE_FILES: list[tuple[str, dict[str, Any], int]] = [  # format, fields, how many files
    ("tsv", {"files": ["0", "1", "2"], "en": 2, "zh": 1, "skip": 3, "join_lines": True}, 3),
    ("jsonl", {"files": ["0", "1"]}, 2),
    ("moses", {"en": ["0", "1"], "zh": ["2", "3"], "image": ["4", "5"], "join_lines": True}, 6),
    ("interleaved", {"files": ["0", "1", "2"]}, 3),  # whole files, because its lines belong to each other
]


def line_file(draw: random.Random, lines: int) -> bytes:
    """Lines as people have them: of any length, with stray returns, bad bytes, a mark at the start, no last end."""
    cells = ["one", "一", "he went\tAnd then", "so it goes\t三", '{"en": "a", "zh": "b"}', '{"en": ["a", "c"]}', "",
             "\t" * 3, "x" * 90, "\r", "a\rb\t"]  # fmt: skip
    end = draw.choice(["\n", "\n", "\n", "\r\n", "\r"])
    data = draw.choice([b"", b"\xef\xbb\xbf"]) + end.join(draw.choices(cells, k=lines)).encode()
    return data.replace(b"x", b"\xff") + draw.choice([b"", end.encode()])


@pytest.mark.parametrize("kind", range(len(LINE_FILES)))
def test_parts_have_the_batches_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    monkeypatch.setattr(scoring, "BLOCK_BYTES", 128)
    monkeypatch.setattr("data.sources.io.BLOCK_BYTES", 128)
    name, fields, num_files = LINE_FILES[kind]
    made, root, cut = source(name, **fields), str(tmp_path), 0
    for seed in range(16):
        draw = random.Random(seed)
        sizes = [draw.choice([0, 3, 40, 90]) for _ in range(num_files)]
        for number, size in enumerate(sizes):
            lines = sizes[number % 2] if name == "moses" else size
            (tmp_path / str(number)).write_bytes(line_file(draw, lines))
        try:
            whole = list(made.batches(root))
        except UserError:  # files of unequal length, or no line of use
            continue
        parts = scoring.source_parts(made, root)
        assert [batch for part in parts for batch in made.batches(root, part)] == whole
        cut += sum(bool(part.spans) for part in parts)
    assert (cut > 9) == (name != "interleaved")


def test_scored_in_parts_or_whole_the_rows_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{a} Number {n}.\t{b}第{n}。\n" for n in range(200) for a, b in PAIRS)
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    (tmp_path / "b.tsv").write_text("one\ntwo\n" * 2000, encoding="utf-8")
    monkeypatch.setattr(scoring, "BLOCK_BYTES", 1 << 14)
    made, root = source("tsv", files=["a.tsv"]), str(tmp_path)
    parts = scoring.source_parts(made, root)
    assert len(parts) > 5
    whole, apart = (pa.Table.from_batches(scored_batches(made, root, NO_REFERENCES, p)) for p in ([None], parts))
    assert whole.equals(apart)
    assert whole.num_rows == 200 * len(PAIRS)
    both = source("tsv", files=["a.tsv", "b.tsv"])
    for cut in ([None], scoring.source_parts(both, root)):
        with pytest.raises(UserError, match=r"b.tsv: no line has column 2 \(the widest has 1\)"):
            list(scored_batches(both, root, NO_REFERENCES, cut))
