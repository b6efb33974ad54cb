"""The section of a generation run: its measures, and the pictures of every conditioning side by side."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from eval.images import opened
from eval.report.parts import inside, table

MEASURES = {
    "psnr": "PSNR to the teacher's picture, dB",
    "latent_distance": "distance of the latents",
    "prediction_error": "how far the UNet's prediction moves",
    "things": "things as asked",
    "read_exact": "whole picture as asked",
}
ENLARGED = 128


def section(name: str, result: Mapping[str, Any], pictures: Path) -> str:
    """Everything of one folder that `eval.generation` wrote; `pictures` is its folder of that name."""
    measured = {key: said for key, said in MEASURES.items() if key in result}
    names = dict.fromkeys(each for key in measured for each in result[key])
    rows = [
        f"<tr class='{'student' if each.startswith('student') else ''}'><td>{escape(each)}</td>"
        + "".join(f"<td>{_cell(result[key].get(each))}</td>" for key in measured)
        + "</tr>"
        for each in names
    ]
    settings = result["settings"]
    note = f"{settings['prompts']} prompts, {settings['seeds']} noises each, the same for every conditioning."
    scores = table(["", *measured.values()], rows)
    grid = "".join(_prompt(number, said, pictures) for number, said in enumerate(result["shown"]))
    heading = f"<h2>Twin pictures <small>{escape(name)}</small></h2>"
    return f"{heading}{scores}<p class='note'>{escape(note)}</p>{grid}"


def _cell(value: Mapping[str, Any] | None) -> str:
    return (
        "" if value is None else f"{value['mean']:.3f} <small>{value['ci95'][0]:.3f} to {value['ci95'][1]:.3f}</small>"
    )


def _prompt(number: int, said: Mapping[str, str | None], pictures: Path) -> str:
    """The pictures of one prompt, the teacher's first."""
    files = sorted(
        pictures.glob(f"{number:03d}.*.png"), key=lambda path: (not path.name[4:].startswith("teacher"), path)
    )
    shots = []
    for path in files:
        conditioning = path.name.split(".")[1]
        picture = opened(path.read_bytes(), path.name)
        if picture.width < ENLARGED:
            times = -(-ENLARGED // picture.width)
            picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
        shot = inside(picture, f"{conditioning}, prompt {number + 1}")
        shots.append(f"<figure>{shot}<figcaption>{escape(conditioning)}</figcaption></figure>")
    texts = "<br>".join(escape(text) for text in (said["zh"], said["en"], said.get("mixed")) if text)
    return f"<h4>{texts}</h4><div class='shots twins'>{''.join(shots)}</div>" if shots else ""
