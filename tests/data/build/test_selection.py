"""Judging: what is compared between rows is compared in groups on disk, and their number changes no verdict."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.build.cache import ScoredSource
from data.build.config import load_corpus_config
from data.build.row_streams import RowStreams, exact_median, split_held_out
from data.build.selection import select_rows
from data.clean.benchmarks import Exclusions
from data.clean.hashing import NUM_HASHES, splitmix64
from data.clean.scores import SCORES
from data.sources.base import Source
from data.sources.delimited import Tsv
from tests.data.corpora import write_config


def plain_source(name: str, domain: str) -> Source:
    return Tsv(name=name, domain=domain, license="CC0", files=("a",))  # type: ignore[arg-type]


def scored(source: Source, folder: Path, **columns: pa.Array | np.ndarray) -> ScoredSource:
    """A source whose scored rows have these columns."""
    path = folder / f"{source.name}.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=100)
    return ScoredSource(source, path, len(next(iter(columns.values()))), (), 0)


def random_rows(source: Source, folder: Path, draw: np.random.Generator, count: int = 300) -> ScoredSource:
    """Rows that pass the rules, whose keys, ratios and signatures often repeat."""
    passing = dict.fromkeys(SCORES, 0.0) | {"en_chars": 30.0, "zh_chars": 9.0, "zh_han": 1.0, "en_latin": 1.0}
    columns = {name: np.full(count, value, np.float32) for name, value in passing.items()}
    columns["log_ratio"] = draw.normal(size=count).astype(np.float32).round(1)
    columns["zh_chars"] = draw.integers(4, 20, count).astype(np.float32)
    keys = {f"{side}_key": splitmix64(draw.integers(0, count // 2, count).astype(np.uint64)) for side in ("en", "zh")}
    places = {"file": np.zeros(count, np.int32), "line": draw.integers(0, count, count)}
    signatures = draw.integers(0, 256, (count // 3, NUM_HASHES)).astype(np.uint8)[draw.integers(0, count // 3, count)]
    signatures[np.arange(count), draw.integers(0, NUM_HASHES, count)] += 1
    signature = pa.FixedSizeBinaryArray.from_buffers(pa.binary(NUM_HASHES), count, [None, pa.py_buffer(signatures)])
    texts = dict.fromkeys(("fault", "image"), pa.array([""] * count))
    return scored(source, folder, **columns, **keys, **places, **texts, signature=signature)


@pytest.mark.parametrize("seed", range(2))
def test_the_number_of_groups_changes_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = np.random.default_rng(seed)
    entries = [
        {"name": name, "format": "tsv", "files": ["a"], "domain": domain, "machine": machine}
        for name, domain, machine in (("machine", "caption", "x"), ("people", "caption", ""), ("other", "general", ""))
    ]
    limits = {"max_ratio_deviations": 2.0, "max_same_zh": 2, "max_same_en": 2}
    resolved = load_corpus_config(write_config(tmp_path, entries, valid_per_domain=20, limits=limits))
    sources = [random_rows(source, tmp_path, draw) for source in resolved.sources]
    whole = select_rows(resolved, sources, Exclusions(), tmp_path)
    reasons = [whole.reject_log.reasons[code] for code in whole.codes]
    expected = {"", "valid", "duplicate", "same_en", "same_zh", "near_duplicate", "length_ratio", "shares_valid"}
    assert set(reasons) == expected
    for group_rows in (300, 9):
        monkeypatch.setattr("data.build.row_streams.GROUP_ROWS", group_rows)
        grouped = select_rows(resolved, sources, Exclusions(), tmp_path / "scratch")
        assert [grouped.reject_log.reasons[code] for code in grouped.codes] == reasons
        assert grouped.reject_log.examples == whole.reject_log.examples
        assert list((tmp_path / "scratch").iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1))
def test_the_median_of_a_stream_is_that_of_numpy(blocks: list[list[float]]) -> None:
    arrays = [np.array(block, np.float32) for block in blocks]
    if sum(map(len, arrays)):
        with np.errstate(over="ignore"):
            expected = np.median(np.concatenate(arrays))
            assert exact_median(lambda: iter(arrays)) == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_no_sentence_stands_on_both_sides_of_the_split(tmp_path: Path, seed: int, per_domain: int) -> None:
    draw = np.random.default_rng(seed)
    domains = ["caption", "general"]
    keys = [{f"{side}_key": draw.integers(0, 300, 200).astype(np.uint64) for side in ("en", "zh")} for _ in domains]
    lines = [{"file": np.zeros(200, np.int32), "line": draw.integers(0, 170, 200)} for _ in domains]
    sources = [
        scored(plain_source(name, name), tmp_path, **key, **line)
        for name, key, line in zip(domains, keys, lines, strict=True)
    ]
    rows = RowStreams(sources, (slice(0, 200), slice(200, 400)), tmp_path)
    alive = draw.random(400) < 0.9
    split = split_held_out(rows, alive, domains, per_domain)
    train = alive & ~split.valid & ~split.shared
    assert not (split.valid & split.shared).any()
    assert not (split.valid & ~alive).any()
    assert split.valid.any() or per_domain < 20
    for name in ("en", "zh", "record"):
        values = np.concatenate([block.keys(name) for block in rows.blocks(["en_key", "zh_key", "file", "line"])])
        assert not set(values[split.valid].tolist()) & set(values[train].tolist())
    for span in rows.spans:
        assert split.valid[span].sum() <= per_domain
