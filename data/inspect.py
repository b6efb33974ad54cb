"""`python -m data.inspect CORPUS`: rows by reason, source and score band, in the terminal or as an HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import ArgumentParser

from data.clean.scores import SCORES
from data.command import UserError, command
from data.inspect_page import page

KEPT = "kept"


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
class Sample:
    """Some rows of one source with one verdict."""

    source: str
    reason: str
    total: int
    rows: list[dict[str, Any]]


def samples(corpus: Path, query: Query) -> list[Sample]:
    """Rows that answer the query, largest groups first."""
    folders = sorted(path.parent for path in (corpus / "scored").glob("*/verdicts.parquet"))
    if not folders:
        raise UserError(f"{corpus}: no scored rows in it; is this a folder that data.build wrote?")
    names = [folder.name for folder in folders]
    if query.source and query.source not in names:
        raise UserError(f"{corpus}: no source {query.source!r}; it has {', '.join(names)}")
    if query.score and query.score not in SCORES:
        raise UserError(f"no score {query.score!r}; the scores are {', '.join(SCORES)}")
    found = [s for f in folders if query.source in ("", f.name) for s in _of_source(f, query)]
    known = {s.reason for s in found}
    if query.reason and not found:
        raise UserError(f"{corpus}: no row with reason {query.reason!r} and this score band; reasons: {sorted(known)}")
    return sorted(found, key=lambda s: (-s.total, s.source, s.reason))


def _of_source(folder: Path, query: Query) -> list[Sample]:
    reasons = pq.read_table(folder / "verdicts.parquet")["reason"].combine_chunks()
    names = [name or KEPT for name in reasons.dictionary.to_pylist()]
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
        Sample(folder.name, names[code], total, [texts[row] for row in rows.tolist()])
        for code, (total, rows) in chosen.items()
    ]


def _pick(rows: npt.NDArray[np.int64], value: npt.NDArray[np.float32] | None, query: Query) -> npt.NDArray[np.int64]:
    take = min(query.rows, len(rows))
    picked = np.random.default_rng(query.seed).choice(rows, take, replace=False)
    return np.sort(picked) if value is None else picked[np.argsort(value[picked], kind="stable")]


def _read(path: Path, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Some rows of a Parquet file in their order; only their row groups are read."""
    found, start = list[dict[str, Any]](), 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            inside = rows[(rows >= start) & (rows < start + count)] - start
            if len(inside):
                table = file.read_row_group(group, columns=["en", "zh", "line", *SCORES])
                found += table.take(pa.array(inside)).to_pylist()
            start += count
    return found


def told(sample: Sample, score: str) -> str:
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
    given = parser.parse_args()
    query = Query(**{name: getattr(given, name) for name in Query.__dataclass_fields__})
    found = samples(given.corpus, query)
    for sample in found:
        print(told(sample, query.score))
    if given.html:
        partial = given.html.with_name(given.html.name + ".partial")
        partial.write_text(page(given.corpus, found), encoding="utf-8")
        partial.replace(given.html)
        print(f"wrote {given.html}")


if __name__ == "__main__":
    command(main)
