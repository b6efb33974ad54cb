"""Small corpora that the tests write: hand-made rows in the published formats."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import yaml

from data.build.__main__ import build

PAIRS = [
    ("A dog runs on the grass.", "一只狗在草地上奔跑。"),
    ("Two men are riding bicycles.", "两个男人在骑自行车。"),
    ("A girl in a red dress smiles.", "一个穿红裙子的女孩在微笑。"),
    ("The moon rises over the sea.", "月亮从海上升起。"),
    ("A boat floats on the quiet lake.", "一只小船漂在平静的湖面上。"),
    ("An old bridge crosses the river.", "一座古老的桥横跨河流。"),
    ("Snow covers the high mountains.", "白雪覆盖着高山。"),
    ("A cat sleeps under the table.", "一只猫睡在桌子下面。"),
    ("Children are flying kites in spring.", "孩子们在春天放风筝。"),
    ("A helicopter is taking off.", "一架直升机正在起飞。"),
]


def write_tsv(path: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    """Write rows as TSV, gzipped if the name says so."""
    data = "".join("\t".join(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_config(folder: Path, sources: list[dict[str, Any]], **rest: Any) -> Path:  # noqa: ANN401
    """Write a corpus config; sources get a domain and licence where they name none."""
    full = [{"domain": "general", "license": "CC0", **source} for source in sources]
    path = folder / "corpus.yaml"
    path.write_text(yaml.safe_dump({"sources": full, **rest}, allow_unicode=True), encoding="utf-8")
    return path


def tsv_config(folder: Path, rows: Sequence[tuple[str, ...]], **rest: Any) -> Path:  # noqa: ANN401
    """A config of one TSV source with `rows`."""
    write_tsv(folder / "pairs.tsv", rows)
    return write_config(folder, [{"name": "pairs", "format": "tsv", "files": ["pairs.tsv"]}], **rest)


def built(config: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Build into `corpus` beside the config and return the report."""
    out = config.parent / "corpus"
    build(config, out, **options)
    return dict(json.loads((out / "report.json").read_text(encoding="utf-8")))


def rows(folder: Path, split: str = "train") -> list[dict[str, str]]:
    """The rows of one split, in order."""
    return (
        list(ds.dataset(sorted((folder / split).glob("*.parquet"))).to_table().to_pylist())
        if list((folder / split).glob("*.parquet"))
        else []
    )
