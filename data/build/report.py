"""report.json and DATA_CARD.md of a corpus: where every row went and why, files, licences, samples."""

from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.build.cache import ScoredSource, SourceFile
from data.build.config import ResolvedCorpus
from data.build.selection import KEPT, VALID, Selection
from data.build.shards import WrittenCorpus
from data.clean.benchmarks import Benchmark

SAMPLES_PER_SOURCE = 4  # kept rows on the data card
CELL_LENGTH = 160  # characters of a text on the data card


@dataclass(frozen=True)
class Account:
    """Rows of one source, by verdict."""

    name: str
    rows_in: int
    train: int
    valid: int
    rejected: dict[str, int]

    @property
    def rows_rejected(self) -> int:
        """All rejected rows."""
        return sum(self.rejected.values())


def count_source_rows(
    number: int, scored_source: ScoredSource, selection: Selection, written: WrittenCorpus
) -> Account:
    """Count one source's verdicts, and assert that no row was lost between reading and writing."""
    codes = selection.codes[selection.spans[number]]
    reasons = selection.reject_log.reasons
    counts = Counter({reasons[c]: int(n) for c, n in zip(*np.unique(codes, return_counts=True), strict=True)})
    rejected = {reason: count for reason, count in sorted(counts.items()) if reason not in (KEPT, VALID)}
    name = scored_source.source.name
    account = Account(name, scored_source.num_rows, written.train[name], written.valid[name], rejected)
    if (counts[KEPT], counts[VALID]) != (account.train, account.valid):
        raise AssertionError(f"{name}: wrote {account.train} + {account.valid} rows, the verdicts are {counts}")
    if account.rows_in != account.train + account.valid + account.rows_rejected:
        raise AssertionError(f"{name}: {account.rows_in} rows in, but {account}")
    return account


# What it may mean that most rows of a source are rejected for one reason.
HINTS = {
    "zh_script": "is its `zh` Chinese?",
    "zh_kana": "is its `zh` Japanese?",
    "zh_language": "its `zh` is Cantonese; allow it with limits_by_domain and max_cantonese",
    "en_script": "is its `en` English?",
    "en_language": "is its `en` another language than English?",
    "identical": "are `en` and `zh` the same column or file?",
    "columns": "do its lines have the columns that the config names?",
    "keys": "do its records have the keys that the config names?",
    "bad_utf8": "which `encoding` does it have?",
    "null": "is one side mostly empty?",
}
MIN_HINT_ROWS, HINT_SHARE = 20, 0.5


def source_hint(account: Account) -> str:
    """A line for the user where one reason takes most rows of a source, else ""."""
    reason, count = max(account.rejected.items(), key=lambda item: item[1], default=("", 0))
    if account.rows_in < MIN_HINT_ROWS or count <= HINT_SHARE * account.rows_in or reason not in HINTS:
        return ""
    share = f"{count / account.rows_in:.0%}"
    return f"warning: {account.name}: {share} of its rows are rejected as {reason}: {HINTS[reason]}"


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
    accounts = [count_source_rows(n, source, selection, written) for n, source in enumerate(scored_sources)]
    rejects, domains = Counter[str](), dict[str, Counter[str]]()
    for scored_source, account in zip(scored_sources, accounts, strict=True):
        rejects.update(account.rejected)
        domains.setdefault(scored_source.source.domain, Counter()).update(
            rows_in=account.rows_in, train=account.train, valid=account.valid, rejected=account.rows_rejected
        )
    totals = sum(domains.values(), Counter[str]())
    return {
        "rows_in": totals["rows_in"],
        "rows_kept": totals["train"] + totals["valid"],
        "rows_rejected": totals["rejected"],
        "train_rows": totals["train"],
        "valid_rows": totals["valid"],
        "domains": {name: dict(counts) for name, counts in domains.items()},
        "licenses": sorted({scored_source.source.license for scored_source in scored_sources}),
        "sources": [_source_entry(*entry) for entry in zip(scored_sources, accounts, strict=True)],
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


def _source_entry(scored_source: ScoredSource, account: Account) -> dict[str, Any]:
    source = scored_source.source
    return {
        "name": source.name,
        "machine": source.machine,
        "domain": source.domain,
        "license": source.license,
        "format": type(source).__name__.lower(),
        "rows_in": account.rows_in,
        "rows_kept": account.train + account.valid,
        "train": account.train,
        "valid": account.valid,
        "rejected": account.rejected,
        "files": [asdict(file) for file in scored_source.inputs],
        "seconds": scored_source.seconds,
    }


def _examples(reason: str, selection: Selection, written: WrittenCorpus) -> list[dict[str, Any]]:
    return [
        {**written.example_texts[row], "badness": round(severity, 4)}
        for severity, row in selection.reject_log.examples.get(reason, [])
    ]


def report_summary(report: dict[str, Any]) -> str:
    """A few lines for the terminal, with hints at sources that may be misread."""
    lines = [f"{'source':28} {'rows in':>10} {'train':>10} {'valid':>7} {'rejected':>9}"]
    lines += [
        f"{s['name']:28} {s['rows_in']:>10,} {s['train']:>10,} {s['valid']:>7,} {sum(s['rejected'].values()):>9,}"
        for s in report["sources"]
    ]
    totals = f"{report['train_rows']:>10,} {report['valid_rows']:>7,} {report['rows_rejected']:>9,}"
    lines.append(f"{'all':28} {report['rows_in']:>10,} {totals}")
    top = ", ".join(f"{reason} {entry['rows']:,}" for reason, entry in list(report["rejects"].items())[:12])
    accounts = [Account(s["name"], s["rows_in"], s["train"], s["valid"], s["rejected"]) for s in report["sources"]]
    return "\n".join([*lines, f"rejects: {top}", *filter(None, map(source_hint, accounts))])


def data_card(report: dict[str, Any], samples: dict[str, list[dict[str, str]]]) -> str:
    """The card of a corpus in Markdown, from its report and some kept rows a source."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; `cell` escapes what a text could break
    )
    environment.filters |= {"cell": _cell, "number": "{:,}".format}
    return environment.get_template("DATA_CARD.md.jinja").render(report=report, samples=samples)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:CELL_LENGTH]


def kept_samples(corpus: Path) -> dict[str, list[dict[str, str]]]:
    """Evenly spaced training rows of every source."""
    samples: dict[str, list[dict[str, str]]] = {}
    for path in sorted((corpus / "train").glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                names = pc.unique(file.read_row_group(group, columns=["source"])["source"]).to_pylist()
                if any(len(samples.get(name, [])) < SAMPLES_PER_SOURCE for name in names):
                    _take_samples(file.read_row_group(group, columns=["en", "zh", "source"]), samples)
    return samples


def _take_samples(table: pa.Table, samples: dict[str, list[dict[str, str]]]) -> None:
    source = table["source"].combine_chunks().dictionary_encode()
    codes = source.indices.to_numpy()
    for code, name in enumerate(source.dictionary.to_pylist()):
        taken = samples.setdefault(name, [])
        rows, missing = np.flatnonzero(codes == code), SAMPLES_PER_SOURCE - len(taken)
        if missing > 0:
            chosen = rows[np.linspace(0, len(rows) - 1, min(missing, len(rows))).astype(int)]
            taken += table.take(pa.array(np.unique(chosen))).select(["en", "zh"]).to_pylist()
