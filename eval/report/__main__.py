"""`python -m eval.report RUNS... --out report.html`: a page of results, drawings, runs and pairs, and their JSON."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from data.cli import UserError, command
from data.files import write_json, write_text
from eval.datasets.benchmark import folder_pictures
from eval.report.inputs import Sources, gather
from eval.report.page import page
from eval.report.sections import Picture


def main(arguments: list[str] | None = None) -> None:
    """Gather, draw and write; see `--help`."""
    parser = ArgumentParser(prog="python -m eval.report", description="A report card.", exit_on_error=False)
    parser.add_argument("runs", type=Path, nargs="+", help="result files, folders of runs and of eval.generation")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write; report.json goes beside it")
    parser.add_argument(
        "--images", type=Path, nargs="*", default=[], help="folders of the benchmarks' pictures, for the examples"
    )
    parser.add_argument("--title", type=str, default="Report card")
    given = parser.parse_args(arguments)
    if given.out.suffix != ".html" or not given.out.absolute().parent.is_dir():
        raise UserError(f"--out {given.out}: name an .html file in a folder that exists")
    sources = gather(given.runs)
    content, html = as_json(sources), page(given.title, sources, at_hand(given.images))
    write_text(html, given.out)
    write_json(content, given.out.with_suffix(".json"))
    print(f"{given.out}: " + ", ".join(f"{len(each)} {name}" for name, each in content.items() if each))


def at_hand(folders: Sequence[Path]) -> Picture:
    """Pictures of the first of `folders` that has them: a report may be of several benchmarks, and of some without."""
    sources = [folder_pictures(folder, folder) for folder in folders]

    def picture(image: str) -> bytes | None:
        for source in sources:
            with contextlib.suppress(UserError):
                return source(image)
        return None

    return picture


def as_json(sources: Sources) -> dict[str, dict[str, Any]]:
    """The same content for programs: results, translations, drawings and pairs whole, of each run its last values."""
    last: dict[str, dict[str, float]] = {}
    for name, rows in sources.curves.items():
        last[name] = {key: value for row in rows for key, value in row.items()}
    drawn = {name: each.result for name, each in sources.drawn.items()}
    return {
        "results": sources.results,
        "translations": sources.translations,
        "drawings": drawn,
        "runs": last,
        "pairs": sources.pairs,
    }


if __name__ == "__main__":
    command(main)
