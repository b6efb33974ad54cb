"""DATA_CARD.md: what a corpus holds, where it came from, under which licences, what was rejected, with samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SAMPLES = 4  # rows a source


def data_card(told: dict[str, Any], samples: dict[str, list[dict[str, str]]]) -> str:
    """The card of a corpus from its report and some kept rows a source."""
    lines = [
        "# Data card",
        "",
        f"{told['train_rows']:,} training and {told['valid_rows']:,} held-out English-Chinese pairs out of "
        f"{told['rows_in']:,} rows read; every rejected row has a reason (below, and row by row in `scored/`). "
        f"Config sha256 `{told['config']['sha256'][:16]}`.",
        "",
        "## Sources",
        "",
        "| source | domain | licence | read | train | held out | rejected |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {s['name']}{_made(s['machine'])} | {s['domain']} | {_cell(s['license'])} | {s['rows_in']:,} "
        f"| {s['train']:,} | {s['valid']:,} | {sum(s['rejected'].values()):,} |"
        for s in told["sources"]
    ]
    lines += ["", "## Domains", "", "| domain | read | train | held out |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {d['rows_in']:,} | {d['train']:,} | {d['valid']:,} |" for name, d in told["domains"].items()]
    lines += ["", "## Rejected rows", "", "| reason | rows | for example |", "|---|---:|---|"]
    lines += [f"| {reason} | {r['rows']:,} | {_example(r['worst'])} |" for reason, r in told["rejects"].items()]
    lines += ["", "## Kept out: benchmark texts", ""]
    lines += [
        f"- `{b['path']}`: {b['texts']:,} texts, {b['images']:,} image ids, sha256 `{b['sha256'][:16]}`"
        for b in told["benchmarks"]
    ] or ["None was named: do not report benchmark scores of a student trained on this corpus."]
    lines += ["", "## Samples", ""]
    for name, rows in samples.items():
        lines += [f"### {name}", "", *(f"- {_cell(r['en'])} / {_cell(r['zh'])}" for r in rows), ""]
    lines += ["## Files read", ""]
    lines += [f"- `{f['path']}` sha256 `{f['sha256'] or 'remote'}`" for s in told["sources"] for f in s["files"]]
    return "\n".join(lines) + "\n"


def kept_samples(corpus: Path) -> dict[str, list[dict[str, str]]]:
    """Evenly spaced training rows of every source."""
    found: dict[str, list[dict[str, str]]] = {}
    for path in sorted((corpus / "train").glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                names = pc.unique(file.read_row_group(group, columns=["source"])["source"]).to_pylist()
                if any(len(found.get(name, [])) < SAMPLES for name in names):
                    _take(file.read_row_group(group, columns=["en", "zh", "source"]), found)
    return found


def _take(table: pa.Table, found: dict[str, list[dict[str, str]]]) -> None:
    source = table["source"].combine_chunks().dictionary_encode()
    codes = source.indices.to_numpy()
    for code, name in enumerate(source.dictionary.to_pylist()):
        have = found.setdefault(name, [])
        rows = np.flatnonzero(codes == code)
        want = SAMPLES - len(have)
        if want > 0:
            at = rows[np.linspace(0, len(rows) - 1, min(want, len(rows))).astype(int)]
            have += table.take(pa.array(np.unique(at))).select(["en", "zh"]).to_pylist()


def _made(machine: str) -> str:
    return f" (one side made by {_cell(machine)})" if machine else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:160]


def _example(worst: list[dict[str, Any]]) -> str:
    return f"{_cell(worst[0]['en'])[:60]} / {_cell(worst[0]['zh'])[:40]}" if worst else ""
