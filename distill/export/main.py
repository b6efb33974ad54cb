"""The command line of the export."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from data.cli import UserError
from distill.export.folder import Writer, check_output_folder, export
from distill.export.formats import export_sentence_encoder, write_golden, write_sentence_modules, write_single_files
from distill.export.hub import UploadTarget, hub_token, upload
from distill.export.model_card import card_writer, read_card_info
from distill.export.onnx import require_packages, write_onnx
from distill.export.pipeline import check_pipeline_fit, check_pipeline_out, resolve_pipeline, write_pipeline
from distill.student.xlmr import XlmrStudent
from distill.train.run_folder import load_run, open_run, read_config

PartName = Literal["single-file", "onnx", "sentence-transformers", "golden"]
WRITERS: dict[PartName, Writer] = {
    "single-file": write_single_files,
    "onnx": write_onnx,
    "sentence-transformers": write_sentence_modules,
    "golden": write_golden,
}


def main(arguments: list[str] | None = None) -> None:
    """Read a run, write its student, and on request a pipeline with it and an upload; see `--help`."""
    args = parse_args(arguments)
    if read_config(args.run).student.xlmr is not None:
        _export_sentence_encoder(args)
        return
    student = load_run(args.run, args.step)
    if args.pipeline is not None:
        check_pipeline_fit(student.model.config.hidden_size, args.pipeline)
    name = args.push_to_hub or args.name or args.out.absolute().name
    card_info = read_card_info(name, args.license, args.run, args.results)
    writers = [*(WRITERS[part] for part in args.parts), card_writer(card_info)]
    export(student.model, student.tokenizer, args.out, writers, student.state_layer)
    num_weights = sum(weight.numel() for weight in student.model.parameters())
    print(f"{args.out}: a student of {num_weights / 1e6:.1f} M weights and {len(student.tokenizer)} tokens, checked")
    if args.pipeline is not None:
        write_pipeline(args.out, args.pipeline, args.pipeline_out)
        print(f"{args.pipeline_out}: {args.pipeline} with the student as its prompt encoder")
    if args.push_to_hub is not None:
        print(upload(args.out, UploadTarget(args.push_to_hub, args.public, args.revision, args.commit_message)))


def _export_sentence_encoder(args: Namespace) -> None:
    """Export an `xlmr` student, which no pipeline and no CLIP loader can take, as what it is."""
    if args.pipeline is not None or args.push_to_hub is not None or set(args.parts) & {"single-file", "onnx"}:
        raise UserError(
            "student.xlmr: is no CLIP text tower, so it has no pipeline, upload, single file or ONNX export; "
            "leave these options out to get a sentence-transformers folder"
        )
    opened = open_run(args.run, args.step)
    assert isinstance(opened.student, XlmrStudent)
    export_sentence_encoder(opened.student, opened.tokenizer, args.out)
    print(f"{args.out}: an encoder with projections for sentence-transformers, checked")


def parse_args(arguments: list[str] | None) -> Namespace:
    """The options, with what can be refused before any work is done."""
    parser = ArgumentParser(prog="python scripts/export.py", exit_on_error=False, description="Export a student.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the student to")
    parser.add_argument("--step", type=int | None, help="checkpoint to export; by default the newest")
    parser.add_argument(
        "--parts", type=PartName, nargs="*", default=["sentence-transformers", "golden"],
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
    args = parser.parse_args(arguments)
    if not args.run.is_dir():
        raise UserError(f"--run {args.run}: no such folder; train first with scripts/distill.py")
    check_output_folder(args.out)
    if (args.pipeline is None) != (args.pipeline_out is None):
        raise UserError("--pipeline and --pipeline-out: give both or neither")
    if args.pipeline is not None:
        check_pipeline_out(args.pipeline_out, args.out, resolve_pipeline(args.pipeline))
    if args.push_to_hub is not None:
        hub_token(args.push_to_hub)
    if "onnx" in args.parts:
        require_packages()
    return args
