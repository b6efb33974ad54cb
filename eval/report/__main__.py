"""`python -m eval.report RUNS... --out report.html`: a page of results, drawings, runs and pairs, and their JSON."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from data.cli import UserError, run_cli
from data.files import write_json, write_text
from eval.datasets.benchmark import folder_image_reader
from eval.report.inputs import ReportInputs, load_inputs
from eval.report.page import html_page
from eval.report.sections import OptionalImageReader


def main(arguments: list[str] | None = None) -> None:
    """Gather, draw and write; see `--help`."""
    parser = ArgumentParser(prog="python -m eval.report", description="A report card.", exit_on_error=False)
    parser.add_argument("runs", type=Path, nargs="+", help="result files, folders of runs and of eval.generation")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write; report.json goes beside it")
    parser.add_argument(
        "--images", type=Path, nargs="*", default=[], help="folders of the benchmarks' pictures, for the examples"
    )
    parser.add_argument("--title", type=str, default="Report card")
    args = parser.parse_args(arguments)
    if args.out.suffix != ".html" or not args.out.absolute().parent.is_dir():
        raise UserError(f"--out {args.out}: name an .html file in a folder that exists")
    inputs = load_inputs(args.runs)
    content, html = report_json(inputs), html_page(args.title, inputs, find_image(args.images))
    write_text(html, args.out)
    write_json(content, args.out.with_suffix(".json"))
    print(f"{args.out}: " + ", ".join(f"{len(each)} {name}" for name, each in content.items() if each))


def find_image(folders: Sequence[Path]) -> OptionalImageReader:
    """Pictures of the first of `folders` that has them: a report may be of several benchmarks, and of some without."""
    sources = [folder_image_reader(folder, folder) for folder in folders]

    def picture(image: str) -> bytes | None:
        for source in sources:
            with contextlib.suppress(UserError):
                return source(image)
        return None

    return picture


def report_json(sources: ReportInputs) -> dict[str, dict[str, Any]]:
    """The same content for programs: results, translations, drawings and pairs whole, of each run its last values."""
    last: dict[str, dict[str, float]] = {}
    for name, rows in sources.curves.items():
        last[name] = {key: value for row in rows for key, value in row.items()}
    drawn = {name: each.result for name, each in sources.generations.items()}
    return {
        "results": sources.results,
        "translations": sources.translations,
        "drawings": drawn,
        "runs": last,
        "pairs": sources.pairs,
    }


if __name__ == "__main__":
    run_cli(main)
