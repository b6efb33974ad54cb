"""The same code on a local Ray of two workers writes the same rows as the native runner."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from data.build import cache, scoring
from data.build.scoring import PART_ROWS, ordered_batches
from data.sources.base import Part, Source
from data.sources.io import BLOCK_BYTES
from tests.data.corpora import PAIRS, built, rows, write_config, write_tsv

REPOSITORY = Path(__file__).parents[3]


def test_results_in_any_order_come_back_in_row_order() -> None:
    """Two parts of five rows, each with a record of its end."""
    numbers = [*range(6), *range(PART_ROWS, PART_ROWS + 6)]
    columns = {"x": [0, 1, 2, 3, 4, None, 5, 6, 7, 8, 9, None], "error": [*[None] * 5, ""] * 2, "row": numbers}
    table = pa.table(columns).to_batches()[0]
    pieces = [
        table.slice(7, 5),
        pa.concat_batches([table.slice(2, 1), table.slice(5, 2)]),
        table.slice(0, 2),
        table.slice(3, 2),
    ]
    assert [v for batch in ordered_batches(iter(pieces), 2) for v in batch["x"].to_pylist()] == list(range(10))
    with pytest.raises(AssertionError, match="row 3 never came back"):
        list(ordered_batches(iter(pieces[:3]), 2))
    with pytest.raises(AssertionError, match=f"row {PART_ROWS} never came back"):
        list(ordered_batches(iter([table.slice(0, 6)]), 2))
    with pytest.raises(AssertionError, match="row 5 never came back"):
        list(ordered_batches(iter([table.slice(0, 5)]), 1))


def test_a_build_in_parts_is_the_build_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a cluster, but on this machine's runner."""
    texts = [(f"{en} Number {n}.", f"{zh}第{n}。") for n in range(300) for en, zh in PAIRS]
    write_tsv(tmp_path / "a.tsv", texts)
    for side in range(2):
        write_tsv(tmp_path / f"b.{side}", [(text[side],) for text in texts[::-1]])
    config = write_config(tmp_path, [{"name": "a", "format": "tsv", "files": ["a.tsv"]},
                                     {"name": "b", "format": "moses", "en": ["b.0"], "zh": ["b.1"]}])  # fmt: skip
    built(config)
    whole_rows = rows(tmp_path / "corpus")
    num_spans = list[int]()

    def noted(source: Source, root: str) -> list[Part]:
        parts = scoring.source_parts(source, root)
        num_spans.append(sum(bool(part.spans) for part in parts))
        return parts

    monkeypatch.setattr(scoring, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(cache, "source_parts", noted)
    monkeypatch.setattr("daft.runners.get_or_create_runner", lambda: SimpleNamespace(name="ray"))
    (tmp_path / "corpus").rename(tmp_path / "whole")
    built(config)
    assert min(num_spans) > 5
    assert rows(tmp_path / "corpus") == whole_rows
    assert same_reports(tmp_path / "whole", tmp_path / "corpus")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_machine_and_two_ray_workers_write_the_same(tmp_path: Path) -> None:
    """A big file in parts on both workers, a compressed one on one of them: the same rows, order and report."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra `cluster`: make install")
    many = [
        (f"{a} number {n} and {n * 7} of them.", f"{b}第{n}号共{n * 7}个。") for n in range(22000) for a, b in PAIRS
    ]
    write_tsv(tmp_path / "a.tsv.gz", many[:9999])
    assert write_tsv(tmp_path / "b.tsv", many).stat().st_size > 2 * BLOCK_BYTES
    config = write_config(
        tmp_path, [{"name": n, "format": "tsv", "files": [f]} for n, f in (("a", "a.tsv.gz"), ("b", "b.tsv"))]
    )
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        build(config, tmp_path / "native", "native", {})
        build(config, tmp_path / "ray", "ray", {"RAY_ADDRESS": cluster.address})
    finally:
        cluster.shutdown()
    for split in ("train", "valid"):
        assert rows(tmp_path / "native", split) == rows(tmp_path / "ray", split)
    assert len(rows(tmp_path / "ray")) > 20_000
    assert same_reports(tmp_path / "native", tmp_path / "ray")


def same_reports(*corpora: Path) -> bool:
    reports = [(corpus / "report.json").read_text(encoding="utf-8") for corpus in corpora]
    return len({re.sub(r'"seconds": [\d.]+', "", report) for report in reports}) == 1


def build(config: Path, out: Path, runner: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "data.build", str(config), "--out", str(out), "--runner", runner]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(out.parent), "PYTHONPATH": str(REPOSITORY), **environment}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
