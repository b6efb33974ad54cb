"""The shipped configs and the real corpora: what must hold on them."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.build import build
from data.clean.benchmarks import image_id, load_benchmark
from data.recipe import load_plan
from tests.data.corpora import rows

REPOSITORY = Path(__file__).parents[2]
CONFIGS = [
    *sorted((REPOSITORY / "configs" / "corpus").glob("*.yaml")),
    *sorted((REPOSITORY / "tests/real").glob("corpus*")),
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_well_formed(path: Path) -> None:
    plan = load_plan(path)
    assert plan.sources
    assert plan.recipe.benchmarks, "a shipped config keeps benchmarks out"


def captions(real: Path, folder: Path) -> Path:
    """A config of 3AM's rows and all benchmarks, taken from the real one."""
    written: dict[str, Any] = yaml.safe_load((REPOSITORY / "tests/real/corpus.yaml").read_text(encoding="utf-8"))
    prefix = "../../../shared/real"

    def placed(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [placed(v) for v in value]
        return value.replace(prefix, str(real)) if isinstance(value, str) else value

    source = {key: placed(value) for key, value in written["sources"][0].items()}
    path = folder / "corpus.yaml"
    config = {"sources": [source], "benchmarks": placed(written["benchmarks"])}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_no_row_on_a_benchmark_photograph_survives(real: Path, tmp_path: Path) -> None:
    build(captions(real, tmp_path), tmp_path / "corpus")
    kept = rows(tmp_path / "corpus") + rows(tmp_path / "corpus", "valid")
    images = {image_id(row["image"]) for row in kept}
    leaks = [line.split("\t") for line in _lines(real / "corpora/caption/LEAK_rows_in_eval_images.tsv")]
    there = {image_id(row[1]) for row in leaks if row[2] != "f30k_val"}  # no validation split is among the files
    assert len(there) > 200
    assert not there & images
    texts = {t for name in ("flickr30k_cn_test.csv", "coco-cn_test.json", "xflickrco.test.zh.jsonl")
             for t in load_benchmark(str(real / "benchmarks"), name).texts}  # fmt: skip
    texts |= set(load_benchmark(str(real / "dev"), "captions.jsonl").texts)
    assert len(texts) > 7000
    assert not texts & ({row["zh"] for row in kept} | {row["en"] for row in kept})
    assert len(kept) > 24_000


def _lines(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode().splitlines()
