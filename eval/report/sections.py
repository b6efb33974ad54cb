"""The section of a retrieval benchmark: its table, its ratios, the peers, and what captions found.

What the peers published on Flickr30K-CN, zero-shot, 1K test: to be shown beside a student's scores.

The section of translation: domain by domain, what sentences find across the languages, and what was translated.

The section of a generation run: its measures, and the pictures of every conditioning side by side.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from eval.report.charts import html_table, inline_image
from eval.retrieval.preprocess import decode_image
from eval.retrieval.result import METRICS, ROLES


@dataclass(frozen=True)
class PublishedModel:
    """A model with its recalls at 1, 5, 10, text to image and image to text, and their mean, in percent."""

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
    PublishedModel("CN-CLIP L/14", (68.0, 89.7, 94.4), (80.2, 96.6, 98.2), 87.9),
    PublishedModel("AltCLIP L/14", (69.8, 89.9, 94.7), (84.8, 97.4, 98.8), 89.2),
    PublishedModel("OpenCLIP XLM-R-L H/14", (71.0, 90.5, 94.9), (86.1, 97.5, 99.2), 89.9),
    PublishedModel("InternVL-G", (77.7, 94.8, 97.3), (92.9, 99.4, 99.8), 93.7),
)
PUBLISHED_SCORES = {"Flickr30K-CN": FLICKR30K_CN}
TEACHER_ON_ENGLISH = PublishedModel(
    "OpenAI CLIP L/14 on English Flickr30K", (65.0, 87.2, 92.0), (85.2, 97.4, 99.2), 87.7
)


OptionalImageReader = Callable[[str], bytes | None]
"""From an image id to the bytes of its file; None where it is not at hand."""
RECALLS = [f"{way} R@{k}" for way in ("T2I", "I2T") for k in (1, 5, 10)]


def retrieval_section(name: str, result: Mapping[str, Any], picture: OptionalImageReader) -> str:
    """Everything of one result file."""
    settings = result["settings"]
    benchmark = str(settings.get("benchmark", name))
    rows = [result_row(each) for each in result["rows"]]
    note = (
        f"{settings.get('images')} images; protocol {settings.get('protocol')}: pictures {settings.get('transform')}, "
        f"at most {settings.get('max_length')} tokens, {settings.get('precision')}. Intervals by bootstrap over images."
    )
    ratios = "".join(
        f"<p><strong>{escape(pair)}</strong>: {told['percent']:.2f} % of the mean recall "
        f"[{told['ci95'][0]:.2f}, {told['ci95'][1]:.2f}]</p>"
        for pair, told in result.get("ratios", {}).items()
    )
    heading = f"<h2>{escape(benchmark)} <small>{escape(name)}</small></h2>"
    scores = html_table(["", *RECALLS, "MR", "95 %"], rows)
    shots = _examples(result.get("examples", []), picture)
    return f'{heading}{scores}{ratios}<p class="note">{escape(note)}</p>{_peers(benchmark)}{shots}'


def result_row(result: Mapping[str, Any]) -> str:
    """A row of a result: who, the six recalls, their mean and its interval."""
    low, high = result["ci95"]["mr"]
    role = ROLES.get((result["model"], result["language"]))
    name = f"{result['model']} {result['language']}" + (f" ({role})" if role else "")
    cells = [*(f"{result[metric]:.1f}" for metric in METRICS[:6]), f"{result['mr']:.2f}", f"{low:.2f} to {high:.2f}"]
    cells = [f"<td>{cell}</td>" for cell in cells]
    return f'<tr class="{escape(result["model"])}"><td>{escape(name)}</td>{"".join(cells)}</tr>'


def _peers(benchmark: str) -> str:
    known = PUBLISHED_SCORES.get(benchmark)
    if known is None:
        return ""
    lines = [
        f"<tr><td>{escape(peer.model)}</td>"
        + "".join(f"<td>{score:.1f}</td>" for score in (*peer.t2i, *peer.i2t, peer.mr))
        + "</tr>"
        for peer in (*known, TEACHER_ON_ENGLISH)
    ]
    published = html_table(["published, 1K test", *RECALLS, "MR"], lines)
    return f"<details><summary>What the peers published</summary>{published}</details>"


def _examples(examples: Sequence[Mapping[str, Any]], picture: OptionalImageReader) -> str:
    shown = [each for each in examples if (each["model"], each["language"]) == ("student", "zh")]
    parts = []
    for example in shown:
        right = set(example["right"])
        shots = [_thumbnail(image, image in right, picture) for image in example["found"]]
        if any(shots):
            place = f"<p class='note'>first right one at place {example['place']}</p>"
            parts.append(f"<h4>{escape(example['caption'])}</h4>{place}<div class='shots'>{''.join(shots)}</div>")
    return f"<h3>What the student finds</h3>{''.join(parts)}" if parts else ""


def _thumbnail(image: str, right: bool, picture: OptionalImageReader) -> str:
    content = picture(image)
    return "" if content is None else inline_image(decode_image(content, image), image, "right" if right else "")


RETRIEVAL_HEAD = ["", *(f"{way} R@{k}" for way in ("to English", "back") for k in (1, 5, 10)), "MR", "95 %"]
TRANSLATION_HEAD = ["", "BLEU", "95 %", "chrF", "95 %", "sentences"]


def translation_section(name: str, result: Mapping[str, Any]) -> str:
    """Everything that `eval.translation` wrote."""
    settings = result["settings"]
    note = (
        f"Each sentence looks for its English among the domain's, {settings['images']} in all, in the teacher's space; "
        f"at most {settings['max_length']} tokens, {settings['precision']}. Intervals by bootstrap over sentences."
    )
    heading = f"<h2>{escape(settings['benchmark'])} <small>{escape(name)}</small></h2>"
    domains = itertools.groupby(result["rows"], key=lambda each: each.get("domain", ""))
    parts = [_domain(domain, list(rows), result) for domain, rows in domains]
    return f"{heading}{''.join(parts)}<p class='note'>{escape(note)}</p>"


def _domain(domain: str, rows: list[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    translations = [each for each in result["translations"] if each["domain"] == domain]
    parts = [f"<h3>{escape(domain)}</h3>", html_table(RETRIEVAL_HEAD, map(result_row, rows))]
    if translations:
        parts.append(html_table(TRANSLATION_HEAD, map(_score, translations)))
        parts += [_samples(each) for each in translations]
    return "".join(parts)


def _score(translation: Mapping[str, Any]) -> str:
    cells = [
        cell
        for metric in ("bleu", "chrf")
        for cell in (f"{translation[metric]:.2f}", "{:.2f} to {:.2f}".format(*translation[f"{metric}_ci95"]))
    ]
    numbers = "".join(f"<td>{cell}</td>" for cell in (*cells, translation["sentences"]))
    return f"<tr><td>{escape(_title(translation))}</td>{numbers}</tr>"


def _samples(translation: Mapping[str, Any]) -> str:
    rows = [
        "<tr>" + "".join(f"<td class='text'>{escape(shown[key])}</td>" for key in ("zh", "en", "said")) + "</tr>"
        for shown in translation["samples"]
    ]
    heading = f"{escape(_title(translation))}; {escape(translation['bleu_signature'])}"
    return f"<details><summary>{heading}</summary>{html_table(['Chinese', 'English', 'said'], rows)}</details>"


def _title(translation: Mapping[str, Any]) -> str:
    return f"{translation['model']} {translation['direction']}"


GENERATION_MEASURES = {
    "psnr": "PSNR to the teacher's picture, dB",
    "latent_distance": "distance of the latents",
    "prediction_error": "how far the UNet's prediction moves",
    "things": "things as asked",
    "read_exact": "whole picture as asked",
}
MIN_WIDTH = 128


def twins_section(name: str, result: Mapping[str, Any], pictures: Path) -> str:
    """Everything of one folder that `eval.generation` wrote; `pictures` is its folder of that name."""
    measured = {key: said for key, said in GENERATION_MEASURES.items() if key in result}
    names = dict.fromkeys(each for key in measured for each in result[key])
    rows = [
        f"<tr class='{'student' if each.startswith('student') else ''}'><td>{escape(each)}</td>"
        + "".join(f"<td>{_cell(result[key].get(each))}</td>" for key in measured)
        + "</tr>"
        for each in names
    ]
    settings = result["settings"]
    note = f"{settings['prompts']} prompts, {settings['seeds']} noises each, the same for every conditioning."
    scores = html_table(["", *measured.values()], rows)
    grid = "".join(_prompt(number, said, pictures) for number, said in enumerate(result["shown"]))
    heading = f"<h2>Twin pictures <small>{escape(name)}</small></h2>"
    return f"{heading}{scores}<p class='note'>{escape(note)}</p>{grid}"


def _cell(value: Mapping[str, Any] | None) -> str:
    return (
        "" if value is None else f"{value['mean']:.3f} <small>{value['ci95'][0]:.3f} to {value['ci95'][1]:.3f}</small>"
    )


def _prompt(number: int, texts_by_language: Mapping[str, str | None], pictures: Path) -> str:
    """The pictures of one prompt, the teacher's first."""
    files = sorted(
        pictures.glob(f"{number:03d}.*.png"), key=lambda path: (not path.name[4:].startswith("teacher"), path)
    )
    shots = []
    for path in files:
        conditioning = path.name.split(".")[1]
        picture = decode_image(path.read_bytes(), path.name)
        if picture.width < MIN_WIDTH:
            times = -(-MIN_WIDTH // picture.width)
            picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
        shot = inline_image(picture, f"{conditioning}, prompt {number + 1}")
        shots.append(f"<figure>{shot}<figcaption>{escape(conditioning)}</figcaption></figure>")
    texts = "<br>".join(
        escape(text)
        for text in (texts_by_language["zh"], texts_by_language["en"], texts_by_language.get("mixed"))
        if text
    )
    return f"<h4>{texts}</h4><div class='shots twins'>{''.join(shots)}</div>" if shots else ""
