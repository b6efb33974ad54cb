"""The shipped configs and the real corpora: what must hold on them."""

import csv
import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data.build.__main__ import build
from data.build.config import load_corpus_config
from data.clean.benchmarks import load_benchmark
from data.sources.benchmark_files import image_id
from tests.data.corpora import rows

REPOSITORY = Path(__file__).parents[3]
CONFIGS = [
    *sorted((REPOSITORY / "configs" / "corpus").glob("*.yaml")),
    *sorted((REPOSITORY / "tests/real").glob("corpus*")),
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_well_formed(path: Path) -> None:
    plan = load_corpus_config(path)
    assert plan.sources
    assert plan.config.benchmarks, "a shipped config keeps benchmarks out"


def placed(value: Any, real: Path) -> Any:  # noqa: ANN401
    """A config with its paths below `real`, wherever it is written."""
    if isinstance(value, dict):
        return {key: placed(v, real) for key, v in value.items()}
    if isinstance(value, list):
        return [placed(v, real) for v in value]
    if isinstance(value, str):
        return value.replace("../../../shared/real", str(real)).replace("../../eval", str(REPOSITORY / "eval"))
    return value


def written(name: str, real: Path) -> dict[str, Any]:
    """A config of the real corpora."""
    return dict(placed(yaml.safe_load((REPOSITORY / "tests/real" / name).read_text(encoding="utf-8")), real))


def captions(real: Path, folder: Path) -> Path:
    """A config of 3AM's rows and all benchmarks, taken from the real one."""
    whole = written("corpus.yaml", real)
    path = folder / "corpus.yaml"
    config = {"sources": whole["sources"][:1], "benchmarks": whole["benchmarks"]}
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


@pytest.mark.slow
def test_rows_that_were_read_by_hand_have_the_verdict_that_was_read(real: Path, tmp_path: Path) -> None:
    """All but the four that their similarity rejects: the encoder takes a quarter of an hour."""
    config = written("corpus-strict.yaml", real)
    by_similarity = {"min_similarity", "max_shift"}
    config["limits_by_domain"] = {
        domain: {key: value for key, value in limits.items() if key not in by_similarity}
        for domain, limits in config["limits_by_domain"].items()
    }
    (tmp_path / "corpus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    build(tmp_path / "corpus.yaml", tmp_path / "corpus")
    found: dict[tuple[str, int, int], set[str]] = {}  # an entry of the dictionary gives several rows
    for folder in (tmp_path / "corpus/scored").iterdir():
        places = pq.read_table(folder / "rows.parquet", columns=["file", "line"]).to_pydict()
        reasons = pq.read_table(folder / "verdicts.parquet")["reason"].to_pylist()
        for file, line, reason in zip(places["file"], places["line"], reasons, strict=True):
            found.setdefault((folder.name, file, line), set()).add("kept" if reason in ("", "valid") else reason)
    checked = list[dict[str, str]]()
    for name in ("hand-checked.tsv", "hand-checked-formats.tsv"):
        with (REPOSITORY / "docs" / name).open(encoding="utf-8") as lines:
            checked += csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert len(checked) == 800
    for row in checked:
        if row["reason"] not in ("unlike", "shifted"):
            verdict = "kept" if row["side"] == "kept" else row["reason"]
            assert verdict in found[row["source"], int(row["file index"]), int(row["line"])], row


def _lines(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode().splitlines()
