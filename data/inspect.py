"""`python -m data.inspect CORPUS`: rows by reason, source and score band, in the terminal or as an HTML page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jsonargparse import ArgumentParser

from data.clean.scores import SCORES
from data.cli import UserError, run_cli
from data.files import write_text

KEPT_LABEL = "kept"  # of rows whose verdict is "", the training rows
NUM_BINS = 30
MAX_PLOTTED = 100_000  # rows of a source that a histogram counts
Floats = npt.NDArray[np.float32]


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


def main() -> None:
    """Read the command line, print samples and write the page."""
    parser = ArgumentParser(prog="data.inspect", description=__doc__, exit_on_error=False)
    parser.add_argument("corpus", type=Path, help="folder that data.build wrote")
    parser.add_class_arguments(Query, as_group=False)
    parser.add_argument("--html", type=Path, default=None, help="write a page with plots here, besides")
    args = parser.parse_args()
    query = Query(**{name: getattr(args, name) for name in Query.__dataclass_fields__})
    groups = samples(args.corpus, query)
    for group in groups:
        print(sample_lines(group, query.score))
    if args.html:
        write_text(render_page(args.corpus, groups), args.html)
        print(f"wrote {args.html}")


def samples(corpus: Path, query: Query) -> list[SampleGroup]:
    """Rows that match the query, largest groups first."""
    folders = sorted(path.parent for path in (corpus / "scored").glob("*/verdicts.parquet"))
    if not folders:
        raise UserError(f"{corpus}: no scored rows in it; is this a folder that data.build wrote?")
    names = [folder.name for folder in folders]
    if query.source and query.source not in names:
        raise UserError(f"{corpus}: no source {query.source!r}; it has {', '.join(names)}")
    if query.score and query.score not in SCORES:
        raise UserError(f"no score {query.score!r}; the scores are {', '.join(SCORES)}")
    chosen = [folder for folder in folders if query.source in ("", folder.name)]
    groups = [group for folder in chosen for group in _sample_source(folder, query)]
    if query.reason and not groups:
        reasons = sorted({name or KEPT_LABEL for folder in chosen for name in _verdicts(folder).dictionary.to_pylist()})
        raise UserError(
            f"{corpus}: no row with reason {query.reason!r} and this score band; the reasons are {', '.join(reasons)}"
        )
    return sorted(groups, key=lambda group: (-group.total, group.source, group.reason))


def _verdicts(folder: Path) -> pa.DictionaryArray:
    """The verdict of every row of one source: "" kept, "valid" held out, else a reject reason."""
    return pq.read_table(folder / "verdicts.parquet")["reason"].combine_chunks()


def _score(folder: Path, score: str) -> Floats:
    return np.asarray(pq.read_table(folder / "rows.parquet", columns=[score])[score].to_numpy(), np.float32)


def _sample_source(folder: Path, query: Query) -> list[SampleGroup]:
    verdicts = _verdicts(folder)
    names, codes = [name or KEPT_LABEL for name in verdicts.dictionary.to_pylist()], verdicts.indices.to_numpy()
    values = _score(folder, query.score) if query.score else None
    in_band = np.ones(len(codes), bool) if values is None else (values >= query.low) & (values <= query.high)
    rows_by_name = {
        name: np.flatnonzero(in_band & (codes == code))
        for code, name in enumerate(names) if query.reason in ("", name)
    }  # fmt: skip
    picked = {name: _pick(rows, values, query) for name, rows in rows_by_name.items() if len(rows)}
    if not picked:
        return []
    shown = np.unique(np.concatenate(list(picked.values())))
    texts = dict(zip(shown.tolist(), _read_rows(folder / "rows.parquet", shown), strict=True))
    return [
        SampleGroup(folder.name, name, len(rows_by_name[name]), [texts[row] for row in rows.tolist()])
        for name, rows in picked.items()
    ]


def _pick(rows: npt.NDArray[np.int64], values: Floats | None, query: Query) -> npt.NDArray[np.int64]:
    picked = np.random.default_rng(query.seed).choice(rows, min(query.rows, len(rows)), replace=False)
    return np.sort(picked) if values is None else picked[np.argsort(values[picked], kind="stable")]


def _read_rows(path: Path, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
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


def sample_lines(group: SampleGroup, score: str) -> str:
    """A group of rows as terminal lines."""
    lines = [f"== {group.source}  {group.reason}  {group.total:,} rows"]
    for row in group.rows:
        value = f"{row[score]:8.3f}  " if score else ""
        lines.append(f"{row['line']:>9}  {value}{row['en'][:110]}  |  {row['zh'][:60]}")
    return "\n".join(lines)


def render_page(corpus: Path, groups: list[SampleGroup]) -> str:
    """The page of `corpus`: verdicts a source, a histogram of every score, samples; one file that loads nothing."""
    report = json.loads((corpus / "report.json").read_text(encoding="utf-8"))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("inspect.html.jinja").render(
        name=corpus.name,
        report=report,
        most_rejects=max((entry["rows"] for entry in report["rejects"].values()), default=1),
        plots=[_histogram(corpus, score) for score in SCORES],
        groups=groups,
    )


@dataclass(frozen=True)
class Histogram:
    """Bars of kept and of rejected rows from `low` to `high`, in units of the page."""

    score: str
    low: float
    high: float
    heights: list[list[float]]


def _histogram(corpus: Path, score: str) -> Histogram:
    """Heights on a square-root scale; the outer 0.1 % of the rows is left out."""
    values, kept = list[Floats](), list[npt.NDArray[np.bool_]]()
    for folder in sorted(path.parent for path in (corpus / "scored").glob("*/verdicts.parquet")):
        column, verdicts = _score(folder, score), _verdicts(folder)
        stride = max(1, len(column) // MAX_PLOTTED)
        is_kept = np.array([name in ("", "valid") for name in verdicts.dictionary.to_pylist()])
        values.append(column[::stride])
        kept.append(is_kept[verdicts.indices.to_numpy()][::stride])
    value, keep = np.concatenate(values), np.concatenate(kept)
    low, high = np.quantile(value, [0.001, 0.999])
    edges = np.linspace(low, max(high, low + 1e-6), NUM_BINS + 1)
    counts = np.stack([np.histogram(value[keep == side], edges)[0] for side in (True, False)])
    return Histogram(score, edges[0], edges[-1], (np.sqrt(counts / max(1, counts.max())) * 38).tolist())


if __name__ == "__main__":
    run_cli(main)
