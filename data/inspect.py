"""`python -m data.inspect CORPUS`: rows by reason, source and score band, in the terminal or as an HTML page.

The HTML page of a corpus: verdicts a source, a histogram of every score, samples; one file, no network.
"""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import ArgumentParser

from data.clean.scores import SCORES
from data.cli import UserError, run_cli

INSPECT_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:auto;padding:1rem;color:#222}
h1,h2,h3{line-height:1.2}table{border-collapse:collapse;width:100%;font-size:14px}td,th{padding:.25rem .5rem;
border-bottom:1px solid #ddd;text-align:left;vertical-align:top}td.n{text-align:right;white-space:nowrap}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}figure{margin:0}
figcaption{font-size:13px}svg{width:100%;height:auto;background:#f6f6f4}.wide{overflow-x:auto}
.kept{fill:#3a7}.gone{fill:#c54}"""
BINS = 30


def render_page(corpus: Path, samples: "list[SampleGroup]") -> str:
    """The page of `corpus`."""
    report_json = json.loads((corpus / "report.json").read_text(encoding="utf-8"))
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Corpus {html.escape(corpus.name)}</title><style>{INSPECT_STYLE}</style>",
        f"<h1>{html.escape(corpus.name)}</h1><p>{report_json['rows_in']:,} rows in, {report_json['rows_kept']:,} kept, "
        f"{report_json['rows_rejected']:,} rejected.</p>",
        "<h2>Sources</h2>" + _sources(report_json),
        "<h2>Reasons</h2>" + _reasons(report_json),
        "<h2>Scores</h2><p>Green: kept rows; red: rejected rows. Counts on a square-root scale.</p>" + _plots(corpus),
        "<h2>Samples</h2>" + "".join(_sample(s) for s in samples),
    ]
    return "\n".join(parts) + "\n"


def _sources(report_json: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(s['name'])}<td>{s['domain']}<td>{html.escape(s['license'])}<td class=n>{s['rows_in']:,}"
        f"<td class=n>{s['train']:,}<td class=n>{s['valid']:,}<td class=n>{sum(s['rejected'].values()):,}"
        for s in report_json["sources"]
    )
    head = "<tr><th>source<th>domain<th>licence<th>read<th>train<th>held out<th>rejected"
    return f"<div class=wide><table>{head}{rows}</table></div>"


def _reasons(report_json: dict[str, Any]) -> str:
    most = max((entry["rows"] for entry in report_json["rejects"].values()), default=1)
    rows = "".join(
        f"<tr><td>{html.escape(reason)}<td class=n>{entry['rows']:,}<td style='width:60%'>"
        f"<svg viewBox='0 0 100 4' preserveAspectRatio=none style='height:.8rem'>"
        f"<rect class=gone width={100 * entry['rows'] / most:.2f} height=4 /></svg>"
        for reason, entry in report_json["rejects"].items()
    )
    return f"<table>{rows}</table>"


def _plots(corpus: Path) -> str:
    counts = {name: _histogram(corpus, name) for name in SCORES}
    return "<div class=plots>" + "".join(_plot(name, *counts[name]) for name in SCORES) + "</div>"


def _histogram(corpus: Path, score: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Bin edges [BINS + 1] and counts [2, BINS] of kept and rejected rows; the outer 0.1 % is left out."""
    values, kept = list[npt.NDArray[np.float32]](), list[npt.NDArray[np.bool_]]()
    for path in sorted((corpus / "scored").glob("*/verdicts.parquet")):
        column = pq.read_table(path.with_name("rows.parquet"), columns=[score])[score].to_numpy()
        step = max(1, len(column) // 100_000)
        reasons = pq.read_table(path)["reason"].combine_chunks()
        good = np.array([name in ("", "valid") for name in reasons.dictionary.to_pylist()])
        values.append(column[::step])
        kept.append(good[reasons.indices.to_numpy()][::step])
    value, keep = np.concatenate(values), np.concatenate(kept)
    low, high = np.quantile(value, [0.001, 0.999])
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    return edges, np.stack([np.histogram(value[keep == side], edges)[0] for side in (True, False)])


def _plot(name: str, edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> str:
    tall = np.sqrt(counts / max(1, counts.max())) * 38
    bars = "".join(
        f"<rect class={kind} x={2 * i + shift:.1f} y={40 - h:.2f} width=.9 height={h:.2f} />"
        for kind, shift, side in (("kept", 0, 0), ("gone", 0.9, 1))
        for i, h in enumerate(tall[side])
        if h
    )
    caption = f"{name}: {edges[0]:.3g} to {edges[-1]:.3g}"
    picture = f"<svg viewBox='0 0 {2 * BINS} 40' preserveAspectRatio=none>{bars}</svg>"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _sample(sample: "SampleGroup") -> str:
    rows = "".join(
        f"<tr><td class=n>{row['line']}<td>{html.escape(row['en'])}<td lang=zh>{html.escape(row['zh'])}"
        for row in sample.rows
    )
    title = f"{html.escape(sample.source)}: {html.escape(sample.reason)} ({sample.total:,} rows)"
    return f"<h3>{title}</h3><div class=wide><table>{rows}</table></div>"


KEPT_LABEL = "kept"


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which rows are shown; an empty field does not restrict."""

    reason: str = ""  # a reject reason, "kept" or "valid"
    source: str = ""
    score: str = ""  # a score's name; rows are then shown in its order
    low: float = float("-inf")
    high: float = float("inf")
    rows: int = 5  # of every reason and source
    seed: int = 0


@dataclass(frozen=True)
class SampleGroup:
    """Some rows of one source with one verdict."""

    source: str
    reason: str
    total: int
    rows: list[dict[str, Any]]


def samples(corpus: Path, query: Query) -> list[SampleGroup]:
    """Rows that answer the query, largest groups first."""
    folders = sorted(path.parent for path in (corpus / "scored").glob("*/verdicts.parquet"))
    if not folders:
        raise UserError(f"{corpus}: no scored rows in it; is this a folder that data.build wrote?")
    names = [folder.name for folder in folders]
    if query.source and query.source not in names:
        raise UserError(f"{corpus}: no source {query.source!r}; it has {', '.join(names)}")
    if query.score and query.score not in SCORES:
        raise UserError(f"no score {query.score!r}; the scores are {', '.join(SCORES)}")
    groups = [s for f in folders if query.source in ("", f.name) for s in _of_source(f, query)]
    known = {s.reason for s in groups}
    if query.reason and not groups:
        raise UserError(f"{corpus}: no row with reason {query.reason!r} and this score band; reasons: {sorted(known)}")
    return sorted(groups, key=lambda s: (-s.total, s.source, s.reason))


def _of_source(folder: Path, query: Query) -> list[SampleGroup]:
    reasons = pq.read_table(folder / "verdicts.parquet")["reason"].combine_chunks()
    names = [name or KEPT_LABEL for name in reasons.dictionary.to_pylist()]
    codes = reasons.indices.to_numpy()
    inside = np.ones(len(codes), bool)
    value: npt.NDArray[np.float32] | None = None
    if query.score:
        value = pq.read_table(folder / "rows.parquet", columns=[query.score])[query.score].to_numpy()
        inside = (value >= query.low) & (value <= query.high)
    chosen: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}
    for code, name in enumerate(names):
        rows = np.flatnonzero(inside & (codes == code))
        if query.reason in ("", name) and len(rows):
            chosen[code] = (len(rows), _pick(rows, value, query))
    if not chosen:
        return []
    shown = np.unique(np.concatenate([rows for _, rows in chosen.values()]))
    texts = dict(zip(shown.tolist(), _read(folder / "rows.parquet", shown), strict=True))
    return [
        SampleGroup(folder.name, names[code], total, [texts[row] for row in rows.tolist()])
        for code, (total, rows) in chosen.items()
    ]


def _pick(rows: npt.NDArray[np.int64], value: npt.NDArray[np.float32] | None, query: Query) -> npt.NDArray[np.int64]:
    take = min(query.rows, len(rows))
    picked = np.random.default_rng(query.seed).choice(rows, take, replace=False)
    return np.sort(picked) if value is None else picked[np.argsort(value[picked], kind="stable")]


def _read(path: Path, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Some rows of a Parquet file in their order; only their row groups are read."""
    records, start = list[dict[str, Any]](), 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            inside = rows[(rows >= start) & (rows < start + count)] - start
            if len(inside):
                table = file.read_row_group(group, columns=["en", "zh", "line", *SCORES])
                records += table.take(pa.array(inside)).to_pylist()
            start += count
    return records


def sample_lines(sample: SampleGroup, score: str) -> str:
    """A group of rows as terminal lines."""
    lines = [f"== {sample.source}  {sample.reason}  {sample.total:,} rows"]
    for row in sample.rows:
        mark = f"{row[score]:8.3f}  " if score else ""
        lines.append(f"{row['line']:>9}  {mark}{row['en'][:110]}  |  {row['zh'][:60]}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line and show."""
    parser = ArgumentParser(prog="data.inspect", description=__doc__, exit_on_error=False)
    parser.add_argument("corpus", type=Path, help="folder that data.build wrote")
    parser.add_class_arguments(Query, as_group=False)
    parser.add_argument("--html", type=Path, default=None, help="write a page with plots here, besides")
    args = parser.parse_args()
    query = Query(**{name: getattr(args, name) for name in Query.__dataclass_fields__})
    groups = samples(args.corpus, query)
    for sample in groups:
        print(sample_lines(sample, query.score))
    if args.html:
        partial = args.html.with_name(args.html.name + ".partial")
        partial.write_text(render_page(args.corpus, groups), encoding="utf-8")
        partial.replace(args.html)
        print(f"wrote {args.html}")


if __name__ == "__main__":
    run_cli(main)
