"""The report as one HTML page that loads nothing: no script, no font, no request; pictures are inside it.

`page.html.jinja` is the page; this module computes what its loops need.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from distill.export.results import RECALLS, ROW_NOTES, ratio_title
from eval.datasets.decoding import decode_image
from eval.report.charts import line_chart
from eval.report.inputs import ReportInputs

OptionalImageReader = Callable[[str], bytes | None]
"""From an image id to the bytes of its file; None where the picture is not at hand."""
GENERATION_MEASURES = {
    "psnr": "PSNR to the teacher's picture, dB",
    "latent_distance": "distance of the latents",
    "prediction_error": "how far the UNet's prediction moves",
    "things": "things as in the prompt",
    "read_exact": "whole picture as in the prompt",
}
CURVE_GROUPS = {"lr": "learning rate", "grad_norm": "gradient norm", "pairs_per_second": "pairs a second"}
THUMBNAIL_SIDE, MIN_GENERATED_SIDE = 192, 128


@dataclass(frozen=True)
class InlineImage:
    """A picture as a data URL; `image` is the id of a retrieved one, `conditioning` that of a generated one."""

    url: str
    image: str = ""
    conditioning: str = ""


@dataclass(frozen=True)
class PublishedModel:
    """Published zero-shot recalls at 1, 5, 10 on a test of 1,000 images, in both directions, and their mean, %."""

    model: str
    t2i: tuple[float, float, float]
    i2t: tuple[float, float, float]
    mr: float


FLICKR30K_CN = (
    PublishedModel("OpenAI CLIP L/14 fed Chinese", (0.0, 2.4, 4.0), (2.3, 8.1, 12.6), 5.0),
    PublishedModel("Taiyi-326M L/14", (53.8, 79.9, 86.6), (64.0, 90.4, 96.1), 78.5),
    PublishedModel("Wukong L/14", (51.7, 78.9, 86.3), (76.1, 94.8, 97.5), 80.9),
    PublishedModel("SkyCLIP L/14", (58.8, 82.6, 89.6), (78.8, 96.1, 98.3), 84.0),
    PublishedModel("CN-CLIP B/16", (62.7, 86.9, 92.8), (74.6, 93.5, 97.1), 84.6),
    PublishedModel("R2D2 L/14", (60.9, 86.8, 92.7), (77.6, 96.7, 98.9), 85.6),
    PublishedModel("AltCLIP_T L/14, text alone (its teacher: 87.6)", (63.7, 86.3, 92.1), (84.7, 97.4, 98.7), 87.2),
    PublishedModel("CN-CLIP L/14", (68.0, 89.7, 94.4), (80.2, 96.6, 98.2), 87.9),
    PublishedModel("AltCLIP L/14, and 2 M images", (69.8, 89.9, 94.7), (84.8, 97.4, 98.8), 89.2),
    PublishedModel("OpenCLIP XLM-R-L H/14", (71.0, 90.5, 94.9), (86.1, 97.5, 99.2), 89.9),
    PublishedModel("InternVL-G", (77.7, 94.8, 97.3), (92.9, 99.4, 99.8), 93.7),
)
TEACHER_ON_ENGLISH = PublishedModel(
    "OpenAI CLIP L/14 on English Flickr30K", (65.0, 87.2, 92.0), (85.2, 97.4, 99.2), 87.7
)


def html_page(title: str, inputs: ReportInputs, read_image: OptionalImageReader) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["fixed"] = lambda value, digits: f"{value:.{digits}f}"
    generations = {name: run.result for name, run in inputs.generations.items()}
    return environment.get_template("page.html.jinja").render(
        title=title,
        inputs=inputs,
        all_settings={
            name: result["settings"]
            for name, result in {**inputs.results, **inputs.translations, **generations, **inputs.prompts}.items()
        },
        roles=ROW_NOTES,
        ratio_title=ratio_title,
        recall_keys=[metric.key for metric in RECALLS],
        recalls=[f"{direction} R@{k}" for direction in ("T2I", "I2T") for k in (1, 5, 10)],
        translation_head=["", *(f"{way} R@{k}" for way in ("to English", "back") for k in (1, 5, 10)), "MR", "95 %"],
        published={"Flickr30K-CN": (*FLICKR30K_CN, TEACHER_ON_ENGLISH)},
        examples=lambda result: list(_student_examples(result, read_image)),
        measures_of=lambda result: [(key, text) for key, text in GENERATION_MEASURES.items() if key in result],
        conditionings=lambda result: dict.fromkeys(
            name for key in GENERATION_MEASURES if key in result for name in result[key]
        ),
        prompt_pictures=_prompt_pictures,
        curves=_curves,
        by_position=lambda pairs: {name: list(enumerate(map(float, row))) for name, row in pairs["by_slot"].items()},
        line_chart=line_chart,
    )


def _student_examples(
    result: Mapping[str, Any], read_image: OptionalImageReader
) -> Iterator[tuple[Mapping[str, Any], list[InlineImage]]]:
    """The student's Chinese queries with the pictures that they retrieved, as far as these are at hand."""
    for example in result.get("examples", []):
        if (example["model"], example["language"]) == ("student", "zh"):
            files = [(image, read_image(image)) for image in example["found"]]
            hits = [
                InlineImage(_data_url(decode_image(content, image)), image=image)
                for image, content in files
                if content is not None
            ]
            if hits:
                yield example, hits


def _prompt_pictures(folder: Path, number: int) -> list[InlineImage]:
    """The pictures of one prompt, the teacher's first; small ones enlarged."""
    files = sorted(folder.glob(f"{number:03d}.*.png"), key=lambda path: (not path.name[4:].startswith("teacher"), path))
    pictures = [enlarged(decode_image(path.read_bytes(), path.name), MIN_GENERATED_SIDE) for path in files]
    return [
        InlineImage(_data_url(picture), conditioning=path.name.split(".")[1])
        for path, picture in zip(files, pictures, strict=True)
    ]


def enlarged(picture: Image.Image, width: int) -> Image.Image:
    """The picture at least `width` pixels wide, by whole multiples and without smoothing."""
    factor = max(1, -(-width // picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _data_url(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _curves(rows: Sequence[Mapping[str, float]]) -> list[tuple[str, dict[str, list[tuple[float, float]]]]]:
    """The series of each chart of a run: held-out values by measure, the losses together."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key not in ("step", "pairs")):
        title, name = CURVE_GROUPS.get(key, "losses"), key
        if key.startswith("valid/"):
            name, measure = key.removeprefix("valid/").rsplit("/", 1)
            title = f"held out: {measure}"
        series = [(float(row["step"]), float(row[key])) for row in rows if key in row and "step" in row]
        groups.setdefault(title, {})[name] = series
    return list(groups.items())
