"""The command line of the export."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from data.cli import UserError
from distill.export.folder import Part, export, refuse_foreign_folder
from distill.export.formats import export_encoder, write_golden, write_sentence_modules, write_single_files
from distill.export.hub import Target, push, token_for
from distill.export.model_card import card, read_origin
from distill.export.onnx import require_packages, write_onnx
from distill.export.pipeline import found_pipeline, refuse_misfit, refuse_place, write_pipeline
from distill.student.xlmr import XlmrStudent
from distill.train.run_folder import load_run, open_run, read_config

Name = Literal["single-file", "onnx", "sentence-transformers", "golden"]
PARTS: dict[Name, Part] = {
    "single-file": write_single_files,
    "onnx": write_onnx,
    "sentence-transformers": write_sentence_modules,
    "golden": write_golden,
}


def main(arguments: list[str] | None = None) -> None:
    """Read a run, write its student, and on request a pipeline with it and an upload; see `--help`."""
    given = parse(arguments)
    if read_config(given.run).student.xlmr is not None:
        _sentence_encoder(given)
        return
    student = load_run(given.run, given.step)
    if given.pipeline is not None:
        refuse_misfit(student.model.config.hidden_size, given.pipeline)
    name = given.push_to_hub or given.name or given.out.absolute().name
    origin = read_origin(name, given.license, given.run, given.results)
    parts = [*(PARTS[part] for part in given.parts), card(origin)]
    export(student.model, student.tokenizer, given.out, parts, student.states)
    weights = sum(weight.numel() for weight in student.model.parameters())
    print(f"{given.out}: a student of {weights / 1e6:.1f} M weights and {len(student.tokenizer)} tokens, checked")
    if given.pipeline is not None:
        write_pipeline(given.out, given.pipeline, given.pipeline_out)
        print(f"{given.pipeline_out}: {given.pipeline} with the student as its prompt encoder")
    if given.push_to_hub is not None:
        print(push(given.out, Target(given.push_to_hub, given.public, given.revision, given.commit_message)))


def _sentence_encoder(given: Namespace) -> None:
    """Export an `xlmr` student, which no pipeline and no CLIP loader can take, as what it is."""
    if given.pipeline is not None or given.push_to_hub is not None or set(given.parts) & {"single-file", "onnx"}:
        raise UserError(
            "student.xlmr: is no CLIP text tower, so it has no pipeline, upload, single file or ONNX export; "
            "leave these options out to get a sentence-transformers folder"
        )
    opened = open_run(given.run, given.step)
    assert isinstance(opened.student, XlmrStudent)
    export_encoder(opened.student, opened.tokenizer, given.out)
    print(f"{given.out}: an encoder with projections for sentence-transformers, checked")


def parse(arguments: list[str] | None) -> Namespace:
    """The options, with what can be refused before any work is done."""
    parser = ArgumentParser(prog="python scripts/export.py", exit_on_error=False, description="Export a student.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the student to")
    parser.add_argument("--step", type=int | None, help="checkpoint to export; by default the newest")
    parser.add_argument(
        "--parts", type=Name, nargs="*", default=["sentence-transformers", "golden"],
        help="further forms: single-file, onnx, sentence-transformers, golden",
    )  # fmt: skip
    parser.add_argument("--name", type=str | None, help="the model's name on its card; by default that of --out")
    parser.add_argument("--license", type=str, default="other", help="licence of the student, as the Hub spells it")
    parser.add_argument("--results", type=Path, nargs="*", default=[], help="results of benchmarks, for the card")
    parser.add_argument("--pipeline", type=str | None, help="folder or Hub id of a pipeline to put the student in")
    parser.add_argument("--pipeline-out", type=Path | None, help="where to write that copy")
    parser.add_argument("--push-to-hub", type=str | None, help="user/name of the model repository to upload to")
    parser.add_argument("--public", type=bool, default=False, help="whether a new repository is public")
    parser.add_argument("--revision", type=str | None, help="branch to upload to; by default main")
    parser.add_argument("--commit-message", type=str, default="Upload the student")
    given = parser.parse_args(arguments)
    if not given.run.is_dir():
        raise UserError(f"--run {given.run}: no such folder; train first with scripts/distill.py")
    refuse_foreign_folder(given.out)
    if (given.pipeline is None) != (given.pipeline_out is None):
        raise UserError("--pipeline and --pipeline-out: give both or neither")
    if given.pipeline is not None:
        refuse_place(given.pipeline_out, given.out, found_pipeline(given.pipeline))
    if given.push_to_hub is not None:
        token_for(given.push_to_hub)
    if "onnx" in given.parts:
        require_packages()
    return given
