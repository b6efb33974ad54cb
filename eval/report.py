"""`python -m eval.report RUNS... --out report.html`: a page, and its JSON beside it, of results, runs and pairs."""

import os
from pathlib import Path

from jsonargparse import ArgumentParser

from data.command import UserError, command
from eval.datasets.pictures import folder_pictures
from eval.report_html import Picture, page
from eval.report_sources import Sources, gather
from eval.result import write_json


def main(arguments: list[str] | None = None) -> None:
    """Gather, draw and write; see `--help`."""
    parser = ArgumentParser(prog="python -m eval.report", description="A report card.", exit_on_error=False)
    parser.add_argument("runs", type=Path, nargs="+", help="result files, files of eval.pairs, folders of runs")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write; report.json goes beside it")
    parser.add_argument("--images", type=Path | None, help="folder of the benchmark's pictures, for the examples")
    parser.add_argument("--title", type=str, default="Report card")
    given = parser.parse_args(arguments)
    if given.out.suffix != ".html" or not given.out.absolute().parent.is_dir():
        raise UserError(f"--out {given.out}: name an .html file in a folder that exists")
    sources = gather(given.runs)
    write_text(page(given.title, sources, at_hand(given.images)), given.out)
    write_json(as_json(sources), given.out.with_suffix(".json"))
    counts = f"{len(sources.results)} results, {len(sources.curves)} runs, {len(sources.pairs)} sets of pairs"
    print(f"{given.out}: {counts}")


def at_hand(images: Path | None) -> Picture:
    """Pictures of the folder `images`; none without it."""
    if images is None:
        return lambda image: None
    return folder_pictures(images, images)


def as_json(sources: Sources) -> dict[str, object]:
    """The same content for programs: results and pairs whole, of each run its last values."""
    last: dict[str, dict[str, float]] = {}
    for name, rows in sources.curves.items():
        last[name] = {key: value for row in rows for key, value in row.items()}
    return {"results": sources.results, "runs": last, "pairs": sources.pairs}


def write_text(text: str, path: Path) -> None:
    """Write `text` so that a reader sees the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    command(main)
