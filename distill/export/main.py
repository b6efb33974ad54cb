"""Exports the student of a run: as one folder, on request inside a copy of a pipeline, and to the Hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from data.cli import UserError
from distill.export import formats, onnx, search
from distill.export.folder import Writer, check_output_folder, export
from distill.export.hub import UploadTarget, hub_token, upload
from distill.export.model_card import CardInfo, card_writer, pair_card, read_card_info
from distill.export.pair import export_pair, open_pair
from distill.export.pipeline import (
    PipelineSource,
    check_pipeline_fit,
    check_pipeline_out,
    resolve_pipeline,
    write_pipeline,
)
from distill.export.results import read_results
from distill.student.xlmr import XlmrStudent
from distill.train.checkpoint import OpenedRun, open_run
from distill.train.pair import PARTS

PartName = Literal[
    "comfyui", "webui", "onnx", "web", "immich", "open_clip", "sentence-transformers", "golden", "decoder"
]


def _with_onnx(writer: Writer) -> Writer:
    """`writer`, which needs the packages of the extra; checked before any work."""
    onnx.require_packages()
    return writer


WRITERS: dict[PartName, Callable[[], Writer]] = {
    "comfyui": lambda: formats.write_comfyui_node,
    "webui": lambda: formats.write_webui_extension,
    "onnx": lambda: _with_onnx(onnx.write_onnx),
    "web": lambda: _with_onnx(search.write_web),
    "immich": lambda: _with_onnx(search.write_immich),
    "sentence-transformers": lambda: formats.write_sentence_modules,
    "golden": lambda: formats.write_golden,
}
PAIR_PARTS: tuple[PartName, ...] = ("comfyui", "webui")
"""What SDXL's two encoders have beside golden vectors, which they always have."""


@dataclass(frozen=True)
class ExportOptions:
    """The command line, read and checked: what to export, in which formats, and where it goes."""

    run: OpenedRun
    out: Path
    writers: tuple[Writer, ...]
    card: CardInfo
    pipeline: PipelineSource | None
    pipeline_out: Path | None
    target: UploadTarget | None


def main(arguments: list[str] | None = None) -> None:
    """Export as the options say; see `--help`."""
    args = _parser().parse_args(arguments)
    if all((args.run / stage / "config.yaml").is_file() for stage in PARTS):
        _export_pair(args)
        return
    options = parse(arguments)
    if isinstance(options.run.student, XlmrStudent):
        formats.export_sentence_encoder(options.run.student, options.run.tokenizer, options.out)
        print(f"{options.out}: an encoder with projections for sentence-transformers, checked")
        return
    model, tokenizer = options.run.student.to_clip(), options.run.tokenizer
    writers = [*options.writers, card_writer(options.card)]
    export(model, tokenizer, options.out, writers, options.run.config.states)
    num_weights = sum(weight.numel() for weight in model.parameters())
    print(f"{options.out}: a student of {num_weights / 1e6:.1f} M weights and {len(tokenizer)} tokens, checked")
    if options.pipeline is not None and options.pipeline_out is not None:
        write_pipeline(options.out, options.pipeline.folder, options.pipeline_out)
        print(f"{options.pipeline_out}: {options.pipeline.name} with the student as its prompt encoder")
    if options.target is not None:
        print(upload(options.out, options.target))


def _export_pair(args: Namespace) -> None:
    """Both encoders of SDXL as the options say."""
    check_output_folder(args.out)
    pipeline = _pipeline_source(args)
    target, parts = _upload_target(args), open_pair(args.run, args.step)
    if strange := set(args.parts) - {*PAIR_PARTS, "sentence-transformers", "golden"}:
        raise UserError(f"--parts {min(strange)}: is of one encoder; SDXL's two take {' and '.join(PAIR_PARTS)}")
    if args.results:
        raise UserError("--results: the card of SDXL's two encoders has no table of benchmarks; leave it out")
    if pipeline is not None:
        check_pipeline_fit([part.run.student.state_width for part in parts], pipeline)
    name = args.push_to_hub or args.name or args.out.absolute().name
    card = pair_card(read_card_info(name, args.license, parts[0].run.config, ()), parts)
    export_pair(parts, args.out, card, [WRITERS[part]() for part in PAIR_PARTS if part in args.parts])
    print(f"{args.out}: text_encoder/ and text_encoder_2/ of {len(parts[0].tokenizer)} tokens each, checked")
    if pipeline is not None:
        write_pipeline(args.out, pipeline.folder, args.pipeline_out)
        print(f"{args.pipeline_out}: {pipeline.name} with the students as its prompt encoders")
    if target is not None:
        print(upload(args.out, target))


def _pipeline_source(args: Namespace) -> PipelineSource | None:
    if (args.pipeline is None) != (args.pipeline_out is None):
        raise UserError("--pipeline and --pipeline-out: give both or neither")
    if args.pipeline is None:
        return None
    pipeline = resolve_pipeline(args.pipeline)
    check_pipeline_out(args.pipeline_out, args.out, pipeline)
    return pipeline


def parse(arguments: list[str] | None) -> ExportOptions:
    """The options with all that they name opened; every mistake is a UserError before anything is written."""
    args = _parser().parse_args(arguments)
    if not args.run.is_dir():
        raise UserError(f"--run {args.run}: no such folder; train first with scripts/distill.py")
    check_output_folder(args.out)
    pipeline = _pipeline_source(args)
    target = _upload_target(args)
    writers = tuple(WRITERS[part]() for part in WRITERS if part in args.parts)  # in their order: web takes onnx/
    results = read_results(args.results)
    run = open_run(args.run, args.step)
    if isinstance(run.student, XlmrStudent):
        if pipeline is not None or target is not None or set(args.parts) - {"sentence-transformers", "golden"}:
            raise UserError(
                "student.xlmr: is no CLIP text tower, so it has no pipeline, upload, or --parts but these two; "
                "leave these options out to get a sentence-transformers folder"
            )
    elif pipeline is not None:
        check_pipeline_fit([run.student.state_width], pipeline)
    if "open_clip" in args.parts:
        writers = (*writers, search.open_clip_writer(run.config.teacher))
    if "decoder" in args.parts:
        writers = (*writers, formats.decoder_writer(args.run, run))
    name = args.push_to_hub or args.name or args.out.absolute().name
    card = read_card_info(name, args.license, run.config, results)
    return ExportOptions(run, args.out, writers, card, pipeline, args.pipeline_out, target)


def _upload_target(args: Namespace) -> UploadTarget | None:
    if args.push_to_hub is None:
        return None
    token = hub_token(args.push_to_hub)
    return UploadTarget(args.push_to_hub, token, args.public, args.revision, args.commit_message)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python scripts/export.py", exit_on_error=False, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run, or of SDXL's l/ and g/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the student to")
    parser.add_argument("--step", type=int | None, help="checkpoint to export; by default the newest")
    parser.add_argument(
        "--parts", type=PartName, nargs="*", default=["sentence-transformers", "golden"],
        help="further formats: comfyui, webui, onnx, web, immich, open_clip, sentence-transformers, golden, decoder",
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
    return parser
