"""The command line of the export."""

from pathlib import Path

from jsonargparse import ArgumentParser

from data.command import UserError
from distill.export import export, refuse_foreign_folder
from distill.student.saved import load_run


def main(arguments: list[str] | None = None) -> None:
    """Read a run and write its student; see `--help`."""
    parser = ArgumentParser(prog="python scripts/export.py", exit_on_error=False, description="Export a student.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the student to")
    parser.add_argument("--step", type=int | None, help="checkpoint to export; by default the newest")
    given = parser.parse_args(arguments)
    if not given.run.is_dir():
        raise UserError(f"--run {given.run}: no such folder; train first with scripts/distill.py")
    refuse_foreign_folder(given.out)
    student = load_run(given.run, given.step)
    export(student.model, student.tokenizer, given.out)
    weights = sum(weight.numel() for weight in student.model.parameters())
    print(f"{given.out}: a student of {weights / 1e6:.1f} M weights and {len(student.tokenizer)} tokens, checked")
