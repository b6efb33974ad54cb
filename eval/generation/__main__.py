"""`python -m eval.generation`: does a student draw what the teacher draws, in the unmodified pipeline?

Every prompt is drawn from the same noise under the teacher's English and the student's English, Chinese and mixed
states. Measured: PSNR and latent distance to the teacher's picture; how far the UNet's prediction moves (0: as under
the teacher's English, 1: as far off as under the empty prompt; `teacher-wrong` is another prompt of the file); the
empty prompt's own error; and, where the prompts carry scenes and a recogniser is given, whether the pictures show them.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.cli import UserError, command_line, commit, run_cli, versions
from data.files import atomic_folder, check_out, hashes, write_json
from distill.loading import resolve_device, torch_dtype
from distill.single_file import unpacked
from eval.generation.compare import GenerationComparison, GenerationSetup, Recognise, compare_generations, summarise
from eval.generation.pipeline import (
    SamplingConfig,
    check_student_fit,
    images_at_once,
    load_pipeline,
    load_prompt_encoder,
    pipeline_text_encoder,
)
from eval.generation.prompts import Prompt, read_prompts
from eval.generation.recogniser import load_recogniser, recognise
from eval.retrieval.result import Precision

_OUTPUT_NAMES = {"result.json", "grid.png", "pictures"}
_TABLE_MEASURES = ("psnr", "latent_distance", "prediction_error", "things", "read_exact")
GAP, LABEL_WIDTH, MIN_SIDE = 4, 110, 128  # pixels of the grid


@dataclass(frozen=True)
class GenerationOptions:
    """The command line.

    Args:
        pipeline: Stable Diffusion 1.x, 2.x or XL: folder or Hub id.
        student: Exported student: folder or Hub id.
        prompts: JSON lines with en, zh, maybe mixed and scene.
        out: Folder of result.json, grid.png and pictures/; an earlier result there is replaced.
        recogniser: Folder of the miniature's recogniser.
        limit: Use the first prompts only.
        seeds: Pictures a prompt and conditioning.
        shown: Prompts whose pictures are kept.
        floor: Also draw the teacher with the Chinese prompts.
        device: cpu, cuda ...; by default the accelerator where there is one.
        precision: Of UNet, VAE and encoders; latents are fp32.
        drawing: Sampling.
    """

    pipeline: str
    student: str
    prompts: Path
    out: Path
    recogniser: Path | None = None
    limit: int | None = None
    seeds: int = 4
    shown: int = 8
    floor: bool = False
    device: str | None = None
    precision: Precision = "fp32"
    drawing: SamplingConfig = field(default_factory=SamplingConfig)


def parse_options(arguments: list[str] | None) -> GenerationOptions:
    """The command line, checked."""
    parser = ArgumentParser(prog="python -m eval.generation", description=__doc__, exit_on_error=False)
    parser.add_class_arguments(GenerationOptions, as_positional=False)
    options = GenerationOptions(**vars(parser.instantiate(parser.parse_args(arguments))))
    sampling = options.drawing
    if min(options.seeds, sampling.steps, sampling.batch or 1) < 1 or (options.limit is not None and options.limit < 2):
        raise UserError("--seeds, --drawing.steps and --drawing.batch are at least 1, --limit at least 2")
    check_out("--out", options.out, _OUTPUT_NAMES)
    return options


def run_generation(arguments: list[str] | None = None) -> dict[str, Any]:
    """Draw, measure, write, and return the result."""
    options, started = parse_options(arguments), time.monotonic()
    prompts = read_prompts(options.prompts, options.limit)
    recognise_images = _recognise_function(options.recogniser, prompts)
    device, dtype = resolve_device(options.device), torch_dtype(options.precision)
    pipeline = load_pipeline(options.pipeline, device, dtype)
    student = load_prompt_encoder(options.student, "--student", dtype, device)
    check_student_fit(student, pipeline, (options.student, options.pipeline))
    sampling = replace(options.drawing, batch=images_at_once(pipeline, options.drawing))
    setup = GenerationSetup(pipeline, pipeline_text_encoder(pipeline), student, sampling, recognise_images)
    comparison = compare_generations(setup, prompts, options.seeds, options.shown, options.floor)
    settings = {
        "pipeline": options.pipeline, "student": options.student, "prompts": len(prompts), "seeds": options.seeds,
        "drawing": asdict(sampling), "scheduler": "DPM-Solver++", "sha256": hashes(_hashed_files(options)),
        "device": str(device), "precision": options.precision, "commit": commit(), "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
        "command": command_line("eval.generation", arguments),
    }  # fmt: skip
    result = {**summarise(comparison), "settings": settings}
    write_comparison(options.out, comparison, prompts, result)
    print(terminal_table(result))
    return result


def _recognise_function(folder: Path | None, prompts: list[Prompt]) -> Recognise | None:
    if folder is None:
        return None
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"--recogniser {folder}: no model.safetensors in it; the miniature's lies in its assets folder")
    missing = [number for number, prompt in enumerate(prompts, 1) if prompt.scene is None]
    if missing:
        raise UserError(f"--recogniser: prompt {missing[0]} has no scene to compare its picture with")
    network = load_recogniser(folder)
    return lambda pictures: recognise(network, pictures)


def _hashed_files(options: GenerationOptions) -> list[Path]:
    pipeline = Path(unpacked(options.pipeline, "--pipeline"))
    folders = [pipeline, Path(options.student), *([options.recogniser] if options.recogniser else [])]
    return [options.prompts, *(path for folder in folders for path in sorted(folder.rglob("*.safetensors")))]


def write_comparison(
    out: Path, comparison: GenerationComparison, prompts: list[Prompt], result: dict[str, Any]
) -> None:
    """Write the folder `out` whole: the pictures with their grid, and result.json, which names their prompts."""
    with atomic_folder(out) as folder:
        (folder / "pictures").mkdir(parents=True)
        for name, pictures in comparison.pictures.items():
            for index, picture in enumerate(pictures):
                Image.fromarray(picture).save(folder / "pictures" / f"{index:03d}.{name}.png")
        shown = [{"en": prompt.en, "zh": prompt.zh, "mixed": prompt.mixed} for prompt in prompts[: len(pictures)]]
        image_grid(comparison.pictures).save(folder / "grid.png")
        write_json({**result, "shown": shown}, folder / "result.json")


def image_grid(rows: Mapping[str, NDArray[np.uint8]]) -> Image.Image:
    """One picture with a row [columns, h, w, 3] for each conditioning and a column for each prompt."""
    first = next(iter(rows.values()))
    side = max(MIN_SIDE, first.shape[1])
    sheet = Image.new("RGB", (LABEL_WIDTH + (side + GAP) * len(first), (side + GAP) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        pen.text((6, row * (side + GAP) + side // 2), name, fill="black")
        for column, picture in enumerate(pictures):
            tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL_WIDTH + column * (side + GAP), row * (side + GAP)))
    return sheet


def terminal_table(result: Mapping[str, Any]) -> str:
    """A line for each conditioning."""
    measures = [measure for measure in _TABLE_MEASURES if measure in result]
    lines = [f"{'':15}" + "".join(f"{measure:>18}" for measure in measures)]
    for name in dict.fromkeys(name for measure in measures for name in result[measure]):
        cells = [result[measure].get(name) for measure in measures]
        lines.append(f"{name:15}" + "".join(f"{cell['mean']:18.4f}" if cell else f"{'-':>18}" for cell in cells))
    error = result["empty_prompt_error"]["student"]["mean"]
    lines.append(f"empty prompt's own error: {error:.6f} (1: as far as a prompt moves the UNet)")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(run_generation)
