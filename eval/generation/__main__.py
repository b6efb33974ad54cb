"""`python -m eval.generation`: does a student draw what the teacher draws, in the unmodified pipeline?

Every prompt is drawn from the same noise under the teacher's English and the student's English, Chinese and mixed
states. Measured: PSNR and latent distance of the twins; how far the UNet's prediction moves (0: as under the teacher's
English, 1: as far off as under the empty prompt; `teacher-wrong` is another prompt of the file); the empty prompt's own
error; and, where the prompts carry scenes and a recogniser is given, whether the pictures show what was asked.

The picture grid: a row a conditioning, a column a prompt.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.cli import UserError, run_cli
from data.files import atomic_folder, write_json
from distill.api import load_text_encoder
from eval.generation.compare import GenerationComparison, Recognise, compare_generations, summarise
from eval.generation.pipeline import SamplingConfig, check_student_fit, load_pipeline, pipeline_text_encoder
from eval.generation.prompts import Prompt, read_prompts
from eval.generation.recogniser import load_recogniser, recognise
from eval.provenance import command_line, commit, hashes, versions
from eval.retrieval.models import resolve_device

GAP, LABEL, MIN_SIDE = 4, 110, 128


def image_grid(rows: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """Rows of pictures [columns, h, w, 3] under their names as one picture; small ones are enlarged."""
    first = next(iter(rows.values()))
    side = max(MIN_SIDE, first.shape[1])
    sheet = Image.new("RGB", (LABEL + (side + GAP) * len(first), (side + GAP) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        pen.text((6, row * (side + GAP) + side // 2), name, fill="black")
        for column, picture in enumerate(pictures):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL + column * (side + GAP), row * (side + GAP)))
    return sheet


_OUTPUT_NAMES = {"result.json", "grid.png", "pictures"}


def parse_args(arguments: list[str] | None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(prog="python -m eval.generation", description=__doc__, exit_on_error=False)
    parser.add_argument("--pipeline", type=str, required=True, help="Stable Diffusion 1.x or 2.x: folder or Hub id")
    parser.add_argument("--student", type=str, required=True, help="exported student: folder or Hub id")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON lines with en, zh, maybe mixed and scene")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of result.json, grid.png and pictures/; drawings there are replaced",
    )
    parser.add_argument("--recogniser", type=Path | None, help="folder of the miniature's recogniser")
    parser.add_argument("--limit", type=int | None, help="use the first prompts only")
    parser.add_argument("--seeds", type=int, default=4, help="pictures a prompt and conditioning")
    parser.add_argument("--shown", type=int, default=8, help="prompts whose pictures are kept")
    parser.add_argument("--floor", type=bool, default=False, help="also draw the teacher's reading of Chinese")
    parser.add_argument("--device", type=str | None, help="cpu, cuda ...; by default cuda where there is one")
    parser.add_class_arguments(SamplingConfig, "drawing")
    return parser.parse_args(arguments)


def run_generation(arguments: list[str] | None = None) -> dict[str, Any]:
    """Draw, measure, write, and return the result."""
    args, started = parse_args(arguments), time.monotonic()
    if min(args.seeds, args.drawing.steps, args.drawing.batch) < 1 or (args.limit is not None and args.limit < 2):
        raise UserError("--seeds, --drawing.steps and --drawing.batch are at least 1, --limit at least 2")
    _check_output_folder(args.out)
    prompts = read_prompts(args.prompts, args.limit)
    recognise_images = _recognise_function(args.recogniser, prompts)
    device = resolve_device(args.device)
    pipeline = load_pipeline(args.pipeline, device)
    student = load_text_encoder(args.student, "--student", device=device)
    check_student_fit(student, pipeline, (args.student, args.pipeline))
    sampling = SamplingConfig(**vars(args.drawing))
    comparison = compare_generations(
        pipeline,
        pipeline_text_encoder(pipeline),
        student,
        prompts,
        args.seeds,
        sampling,
        recognise_images,
        args.shown,
        args.floor,
    )
    settings = {
        "pipeline": args.pipeline, "student": args.student, "prompts": len(prompts), "seeds": args.seeds,
        "drawing": asdict(sampling), "scheduler": "DPM-Solver++", "sha256": hashes(_hashed_files(args)),
        "device": str(device), "commit": commit(), "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
        "command": command_line("eval.generation", arguments),
    }  # fmt: skip
    result = {**summarise(comparison), "settings": settings}
    _write(args.out, comparison, prompts, result)
    print(generation_report(result))
    return result


def _recognise_function(folder: Path | None, prompts: list[Prompt]) -> Recognise | None:
    if folder is None:
        return None
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"--recogniser {folder}: no model.safetensors in it; the miniature's lies in its assets folder")
    missing = [number for number, prompt in enumerate(prompts, 1) if prompt.scene is None]
    if missing:
        raise UserError(f"--recogniser: prompt {missing[0]} has no scene, so nobody knows what its picture should show")
    network = load_recogniser(folder)
    return lambda pictures: recognise(network, pictures)


def _hashed_files(args: Namespace) -> list[Path]:
    folders = [Path(args.pipeline), Path(args.student), *([args.recogniser] if args.recogniser else [])]
    return [args.prompts, *(path for folder in folders for path in sorted(folder.rglob("*.safetensors")))]


def _check_output_folder(out: Path) -> None:
    """Refuse a place that holds anything but drawings: it is replaced."""
    if out.is_file() or (out.is_dir() and {path.name for path in out.iterdir()} - _OUTPUT_NAMES):
        raise UserError(f"--out {out}: something else is there; name a new folder")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: no folder {out.parent}; make it first")


def _write(out: Path, comparison: GenerationComparison, prompts: list[Prompt], result: dict[str, Any]) -> None:
    with atomic_folder(out) as folder:
        (folder / "pictures").mkdir(parents=True)
        for name, drawn in comparison.pictures.items():
            for index, picture in enumerate(drawn):
                Image.fromarray(picture).save(folder / "pictures" / f"{index:03d}.{name}.png")
        shown = [{"en": prompt.en, "zh": prompt.zh, "mixed": prompt.mixed} for prompt in prompts[: len(drawn)]]
        image_grid(comparison.pictures).save(folder / "grid.png")
        write_json({**result, "shown": shown}, folder / "result.json")


def generation_report(result: dict[str, Any]) -> str:
    """A table for the terminal: a line a conditioning."""
    measures = [
        name for name in ("psnr", "latent_distance", "prediction_error", "things", "read_exact") if name in result
    ]
    names = dict.fromkeys(name for measure in measures for name in result[measure])
    lines = [f"{'':15}" + "".join(f"{measure:>18}" for measure in measures)]
    for name in names:
        cells = [result[measure].get(name) for measure in measures]
        lines.append(f"{name:15}" + "".join(f"{cell['mean']:18.4f}" if cell else f"{'-':>18}" for cell in cells))
    own = result["empty_prompt_error"]["student"]["mean"]
    lines.append(f"empty prompt's own error: {own:.6f} (1: as far as a prompt moves the UNet)")
    return "\n".join(lines)


def main() -> None:
    """Compare a student with its teacher in the unmodified pipeline."""
    run_generation()


if __name__ == "__main__":
    run_cli(main)
