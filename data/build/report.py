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

from data.build.cache import Input, Scored
from data.build.config import Plan
from data.build.selection import KEPT, VALID, Verdicts
from data.build.shards import Written
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


def account(number: int, part: Scored, verdicts: Verdicts, written: Written) -> Account:
    """Count one source's verdicts, and assert that no row was lost between reading and writing."""
    codes = verdicts.codes[verdicts.starts[number] : verdicts.starts[number + 1]]
    counts = Counter(
        {verdicts.ledger.reasons[c]: int(n) for c, n in zip(*np.unique(codes, return_counts=True), strict=True)}
    )
    rejected = {reason: count for reason, count in sorted(counts.items()) if reason not in (KEPT, VALID)}
    name = part.source.name
    found = Account(part.count, written.train[name], written.valid[name], rejected)
    if (counts[KEPT], counts[VALID]) != (found.train, found.valid):
        raise AssertionError(f"{name}: wrote {found.train} + {found.valid} rows, the verdicts say {counts}")
    if found.rows_in != found.train + found.valid + found.rows_rejected:
        raise AssertionError(f"{name}: {found.rows_in} rows in, but {found}")
    return found


def report(
    plan: Plan,
    config: Input,
    scored: list[Scored],
    benchmarks: list[tuple[Benchmark, Input]],
    verdicts: Verdicts,
    written: Written,
    seconds: float,
) -> dict[str, Any]:
    """The whole report, ready for JSON."""
    accounts = [account(n, part, verdicts, written) for n, part in enumerate(scored)]
    rejects = Counter[str]()
    domains: dict[str, Counter[str]] = {}
    for part, told in zip(scored, accounts, strict=True):
        rejects.update(told.rejected)
        domains.setdefault(part.source.domain, Counter()).update(
            rows_in=told.rows_in, train=told.train, valid=told.valid, rejected=told.rows_rejected
        )
    return {
        "rows_in": sum(a.rows_in for a in accounts),
        "rows_kept": sum(a.train + a.valid for a in accounts),
        "rows_rejected": sum(a.rows_rejected for a in accounts),
        "train_rows": sum(a.train for a in accounts),
        "valid_rows": sum(a.valid for a in accounts),
        "domains": {name: dict(counts) for name, counts in domains.items()},
        "licenses": sorted({part.source.license for part in scored}),
        "sources": [_source(part, told) for part, told in zip(scored, accounts, strict=True)],
        "rejects": {
            reason: {"rows": count, "worst": _worst(reason, verdicts, written)}
            for reason, count in sorted(rejects.items(), key=lambda item: (-item[1], item[0]))
        },
        "benchmarks": [{**asdict(file), "texts": len(b.texts), "images": len(b.images)} for b, file in benchmarks],
        "config": asdict(config),
        "limits": {domain: asdict(limits) for domain, limits in plan.limits.items()},
        "versions": {name: version(name) for name in ("daft", "pyarrow", "numpy", "opencc")},
        "seconds": round(seconds, 1),
    }


def _source(part: Scored, told: Account) -> dict[str, Any]:
    source = part.source
    return {
        "name": source.name,
        "machine": source.machine,
        "domain": source.domain,
        "license": source.license,
        "format": type(source).__name__.lower(),
        "rows_in": told.rows_in,
        "rows_kept": told.train + told.valid,
        "train": told.train,
        "valid": told.valid,
        "rejected": told.rejected,
        "files": [asdict(i) for i in part.inputs],
        "seconds": part.seconds,
    }


def _worst(reason: str, verdicts: Verdicts, written: Written) -> list[dict[str, Any]]:
    return [
        {**written.texts[row], "badness": round(badness, 4)} for badness, row in verdicts.ledger.worst.get(reason, [])
    ]


def write_report(folder: Path, told: dict[str, Any]) -> None:
    """Write report.json."""
    (folder / "report.json").write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def summary(told: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{'source':28} {'rows in':>10} {'train':>10} {'valid':>7} {'rejected':>9}"]
    lines += [
        f"{s['name']:28} {s['rows_in']:>10,} {s['train']:>10,} {s['valid']:>7,} {sum(s['rejected'].values()):>9,}"
        for s in told["sources"]
    ]
    totals = f"{told['train_rows']:>10,} {told['valid_rows']:>7,} {told['rows_rejected']:>9,}"
    lines.append(f"{'all':28} {told['rows_in']:>10,} {totals}")
    top = ", ".join(f"{reason} {entry['rows']:,}" for reason, entry in list(told["rejects"].items())[:12])
    return "\n".join([*lines, f"rejects: {top}"])


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
