"""report.json: where every row went, why, from which files, under which licence.

DATA_CARD.md: what a corpus holds, where it came from, under which licences, what was rejected, with samples.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.build.cache import ScoredSource, SourceFile
from data.build.config import ResolvedCorpus
from data.build.selection import KEPT, VALID, Selection
from data.build.shards import WrittenCorpus
from data.clean.benchmarks import Benchmark


@dataclass(frozen=True)
class Account:
    """Rows of one source, by verdict."""

    rows_in: int
    train: int
    valid: int
    rejected: dict[str, int]

    @property
    def rows_rejected(self) -> int:
        """All rejects."""
        return sum(self.rejected.values())


def count_source_rows(
    number: int, scored_source: ScoredSource, selection: Selection, written: WrittenCorpus
) -> Account:
    """Count one source's verdicts, and assert that no row was lost between reading and writing."""
    codes = selection.codes[selection.starts[number] : selection.starts[number + 1]]
    counts = Counter(
        {selection.reject_log.reasons[c]: int(n) for c, n in zip(*np.unique(codes, return_counts=True), strict=True)}
    )
    rejected = {reason: count for reason, count in sorted(counts.items()) if reason not in (KEPT, VALID)}
    name = scored_source.source.name
    counted = Account(scored_source.num_rows, written.train[name], written.valid[name], rejected)
    if (counts[KEPT], counts[VALID]) != (counted.train, counted.valid):
        raise AssertionError(f"{name}: wrote {counted.train} + {counted.valid} rows, the verdicts say {counts}")
    if counted.rows_in != counted.train + counted.valid + counted.rows_rejected:
        raise AssertionError(f"{name}: {counted.rows_in} rows in, but {counted}")
    return counted


def build_report(
    resolved: ResolvedCorpus,
    config_file: SourceFile,
    scored_sources: list[ScoredSource],
    benchmarks: list[tuple[Benchmark, SourceFile]],
    selection: Selection,
    written: WrittenCorpus,
    seconds: float,
) -> dict[str, Any]:
    """The whole report, ready for JSON."""
    accounts = [count_source_rows(n, part, selection, written) for n, part in enumerate(scored_sources)]
    rejects = Counter[str]()
    domains: dict[str, Counter[str]] = {}
    for scored_source, source_account in zip(scored_sources, accounts, strict=True):
        rejects.update(source_account.rejected)
        domains.setdefault(scored_source.source.domain, Counter()).update(
            rows_in=source_account.rows_in,
            train=source_account.train,
            valid=source_account.valid,
            rejected=source_account.rows_rejected,
        )
    return {
        "rows_in": sum(a.rows_in for a in accounts),
        "rows_kept": sum(a.train + a.valid for a in accounts),
        "rows_rejected": sum(a.rows_rejected for a in accounts),
        "train_rows": sum(a.train for a in accounts),
        "valid_rows": sum(a.valid for a in accounts),
        "domains": {name: dict(counts) for name, counts in domains.items()},
        "licenses": sorted({part.source.license for part in scored_sources}),
        "sources": [_source_entry(part, told) for part, told in zip(scored_sources, accounts, strict=True)],
        "rejects": {
            reason: {"rows": count, "worst": _examples(reason, selection, written)}
            for reason, count in sorted(rejects.items(), key=lambda item: (-item[1], item[0]))
        },
        "benchmarks": [{**asdict(file), "texts": len(b.texts), "images": len(b.image_ids)} for b, file in benchmarks],
        "config": asdict(config_file),
        "limits": {domain: asdict(limits) for domain, limits in resolved.limits.items()},
        "versions": {name: version(name) for name in ("daft", "pyarrow", "numpy", "opencc")},
        "seconds": round(seconds, 1),
    }


def _source_entry(scored_source: ScoredSource, source_account: Account) -> dict[str, Any]:
    source = scored_source.source
    return {
        "name": source.name,
        "machine": source.machine,
        "domain": source.domain,
        "license": source.license,
        "format": type(source).__name__.lower(),
        "rows_in": source_account.rows_in,
        "rows_kept": source_account.train + source_account.valid,
        "train": source_account.train,
        "valid": source_account.valid,
        "rejected": source_account.rejected,
        "files": [asdict(i) for i in scored_source.inputs],
        "seconds": scored_source.seconds,
    }


def _examples(reason: str, selection: Selection, written: WrittenCorpus) -> list[dict[str, Any]]:
    return [
        {**written.example_texts[row], "badness": round(severity, 4)}
        for severity, row in selection.reject_log.examples.get(reason, [])
    ]


def write_report(folder: Path, report_json: dict[str, Any]) -> None:
    """Write report.json."""
    (folder / "report.json").write_text(json.dumps(report_json, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def report_summary(report_json: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{'source':28} {'rows in':>10} {'train':>10} {'valid':>7} {'rejected':>9}"]
    lines += [
        f"{s['name']:28} {s['rows_in']:>10,} {s['train']:>10,} {s['valid']:>7,} {sum(s['rejected'].values()):>9,}"
        for s in report_json["sources"]
    ]
    totals = f"{report_json['train_rows']:>10,} {report_json['valid_rows']:>7,} {report_json['rows_rejected']:>9,}"
    lines.append(f"{'all':28} {report_json['rows_in']:>10,} {totals}")
    top = ", ".join(f"{reason} {entry['rows']:,}" for reason, entry in list(report_json["rejects"].items())[:12])
    return "\n".join([*lines, f"rejects: {top}"])


SAMPLES = 4  # rows a source


def data_card(report_json: dict[str, Any], samples: dict[str, list[dict[str, str]]]) -> str:
    """The card of a corpus from its report and some kept rows a source."""
    lines = [
        "# Data card",
        "",
        f"{report_json['train_rows']:,} training and {report_json['valid_rows']:,} held-out "
        f"English-Chinese pairs out of "
        f"{report_json['rows_in']:,} rows read; every rejected row has a reason (below, and row by row in `scored/`). "
        f"Config sha256 `{report_json['config']['sha256'][:16]}`.",
        "",
        "## Sources",
        "",
        "| source | domain | licence | read | train | held out | rejected |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {s['name']}{_machine_note(s['machine'])} | {s['domain']} | {_cell(s['license'])} | {s['rows_in']:,} "
        f"| {s['train']:,} | {s['valid']:,} | {sum(s['rejected'].values()):,} |"
        for s in report_json["sources"]
    ]
    lines += ["", "## Domains", "", "| domain | read | train | held out |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {d['rows_in']:,} | {d['train']:,} | {d['valid']:,} |" for name, d in report_json["domains"].items()
    ]
    lines += ["", "## Rejected rows", "", "| reason | rows | for example |", "|---|---:|---|"]
    lines += [f"| {reason} | {r['rows']:,} | {_example(r['worst'])} |" for reason, r in report_json["rejects"].items()]
    lines += ["", "## Kept out: benchmark texts", ""]
    lines += [
        f"- `{b['path']}`: {b['texts']:,} texts, {b['images']:,} image ids, sha256 `{b['sha256'][:16]}`"
        for b in report_json["benchmarks"]
    ] or ["None was named: do not report benchmark scores of a student trained on this corpus."]
    lines += ["", "## Samples", ""]
    for name, rows in samples.items():
        lines += [f"### {name}", "", *(f"- {_cell(r['en'])} / {_cell(r['zh'])}" for r in rows), ""]
    lines += ["## Files read", ""]
    lines += [f"- `{f['path']}` sha256 `{f['sha256'] or 'remote'}`" for s in report_json["sources"] for f in s["files"]]
    return "\n".join(lines) + "\n"


def kept_samples(corpus: Path) -> dict[str, list[dict[str, str]]]:
    """Evenly spaced training rows of every source."""
    samples: dict[str, list[dict[str, str]]] = {}
    for path in sorted((corpus / "train").glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                names = pc.unique(file.read_row_group(group, columns=["source"])["source"]).to_pylist()
                if any(len(samples.get(name, [])) < SAMPLES for name in names):
                    _take_samples(file.read_row_group(group, columns=["en", "zh", "source"]), samples)
    return samples


def _take_samples(table: pa.Table, samples: dict[str, list[dict[str, str]]]) -> None:
    source = table["source"].combine_chunks().dictionary_encode()
    codes = source.indices.to_numpy()
    for code, name in enumerate(source.dictionary.to_pylist()):
        kept = samples.setdefault(name, [])
        rows = np.flatnonzero(codes == code)
        missing = SAMPLES - len(kept)
        if missing > 0:
            at = rows[np.linspace(0, len(rows) - 1, min(missing, len(rows))).astype(int)]
            kept += table.take(pa.array(np.unique(at))).select(["en", "zh"]).to_pylist()


def _machine_note(machine: str) -> str:
    return f" (one side made by {_cell(machine)})" if machine else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:160]


def _example(worst: list[dict[str, Any]]) -> str:
    return f"{_cell(worst[0]['en'])[:60]} / {_cell(worst[0]['zh'])[:40]}" if worst else ""
