"""docs/formats.md: its files, read by its entries of a corpus config, give the pairs that they show."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data.build.config import FORMATS, load_corpus_config
from tests.data.corpora import built, write_config
from tests.data.sources.test_workbooks_and_indices import PAGE, workbook

EXAMPLES = re.findall(r"^```text\n(.*?)^```\n```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ENTRIES = [(files, entry) for files, entries in EXAMPLES for entry in yaml.safe_load(entries)]


def write_files(text: str, folder: Path) -> None:
    """Files as `head` prints several: ==> NAME <== and the content; of workbooks and Parquet files their rows."""
    _, *parts = re.split(r"^==> (.*) <==\n", text, flags=re.MULTILINE)
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        lines = content.splitlines()
        if name.endswith(".xlsx"):
            (folder / name).write_bytes(workbook(Sheet1=[[*line.split("\t")] for line in lines]))
        elif name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(list(map(json.loads, lines))), folder / name)
        else:
            (folder / name).write_text(content, encoding="utf-8")


def test_every_format_has_an_example_and_is_in_the_overview() -> None:
    assert {entry["format"] for _, entry in ENTRIES} == set(FORMATS) - {"mtdata"}
    overview = (Path(__file__).parents[3] / "docs" / "corpus.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in overview or f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    ("files", "entry"), ENTRIES, ids=lambda value: value["name"] if isinstance(value, dict) else ""
)
def test_a_documented_example_is_read(files: str, entry: dict[str, Any], tmp_path: Path) -> None:
    write_files(files, tmp_path)
    (source,) = load_corpus_config(write_config(tmp_path, [entry])).sources
    rows = pa.Table.from_batches(list(source.batches(str(tmp_path)))).to_pylist()
    kept = [row for row in rows if not row["fault"]]
    assert kept
    assert all(row["en"] and row["zh"] and not re.search(r"[_|()\\<>]|^n\.", row["en"] + row["zh"])
               for row in kept if entry["format"] not in ("sgml", "tsv"))  # fmt: skip


def test_all_examples_build_one_corpus(tmp_path: Path) -> None:
    for files, _ in EXAMPLES:
        write_files(files, tmp_path)
    report = built(write_config(tmp_path, [entry for _, entry in ENTRIES], valid_per_domain=0))
    assert len(report["sources"]) == len(ENTRIES)
    assert report["rows_in"] == report["rows_kept"] + report["rows_rejected"]
    assert report["rows_kept"] > 20
