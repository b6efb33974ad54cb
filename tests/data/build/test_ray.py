"""The same code on a local Ray of two CPUs writes the same rows as the native runner."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from data.build.scoring import ordered_batches
from tests.data.corpora import PAIRS, rows, write_config, write_tsv

REPOSITORY = Path(__file__).parents[3]


def test_results_in_any_order_come_back_in_row_order() -> None:
    table = pa.table({"x": list(range(10)), "row": pa.array(range(10), pa.int64())}).to_batches()[0]
    pieces = [
        table.slice(7, 3),
        pa.concat_batches([table.slice(2, 1), table.slice(5, 2)]),
        table.slice(0, 2),
        table.slice(3, 2),
    ]
    assert [v for batch in ordered_batches(iter(pieces)) for v in batch["x"].to_pylist()] == list(range(10))
    with pytest.raises(AssertionError, match="row 3 never came back"):
        list(ordered_batches(iter(pieces[:3])))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_and_native_write_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `cluster`: make install")
    many = [(f"{a} number {n} and {n * 7} of them.", f"{b}第{n}号共{n * 7}个。") for n in range(7000) for a, b in PAIRS]
    write_tsv(tmp_path / "a.tsv.gz", many)
    write_tsv(tmp_path / "b.tsv", PAIRS)
    config = write_config(
        tmp_path, [{"name": n, "format": "tsv", "files": [f]} for n, f in (("b", "b.tsv"), ("a", "a.tsv.gz"))]
    )
    for runner in ("native", "ray"):
        command = [sys.executable, "-m", "data.build", str(config), "--out", str(tmp_path / runner), "--runner", runner]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "RAY_NUM_CPUS": "2",
            "PYTHONPATH": str(REPOSITORY),
        }
        ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
        assert ran.returncode == 0, ran.stderr[-3000:]
    for split in ("train", "valid"):
        assert rows(tmp_path / "native", split) == rows(tmp_path / "ray", split)
    assert len(rows(tmp_path / "ray")) > 20_000
