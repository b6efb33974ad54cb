"""`python -m eval.report RUNS... --out report.html`: results, pictures, training curves and pairs on one page."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from data.cli import UserError, run_cli
from data.files import write_json, write_text
from eval.datasets.benchmark import folder_image_reader
from eval.report.inputs import ReportInputs, load_inputs
from eval.report.page import OptionalImageReader, html_page


def main(arguments: list[str] | None = None) -> None:
    """Write the page and its JSON; see `--help`."""
    parser = ArgumentParser(prog="python -m eval.report", description=__doc__, exit_on_error=False)
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
    print(f"{args.out}: " + ", ".join(f"{len(values)} {kind}" for kind, values in content.items() if values))


def find_image(folders: Sequence[Path]) -> OptionalImageReader:
    """A reader of the first of `folders` that has an image: a report may cover several benchmarks, some without."""
    readers = [folder_image_reader(folder, folder) for folder in folders]

    def read_image(image: str) -> bytes | None:
        for reader in readers:
            with contextlib.suppress(UserError):
                return reader(image)
        return None

    return read_image


def report_json(inputs: ReportInputs) -> dict[str, dict[str, Any]]:
    """The same content for programs: all results, and for each run the last value of each metric."""
    return {
        "results": inputs.results,
        "translations": inputs.translations,
        "drawings": {name: run.result for name, run in inputs.generations.items()},
        "runs": {name: {k: v for row in rows for k, v in row.items()} for name, rows in inputs.curves.items()},
        "pairs": inputs.pairs,
        "prompts": inputs.prompts,
    }


if __name__ == "__main__":
    run_cli(main)
