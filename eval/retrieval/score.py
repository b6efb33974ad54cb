"""Score a student and its teacher on one retrieval benchmark.

What a score depends on, to be written beside it.

Translate-then-teacher: Chinese captions through a translation model, for the row that a student must beat.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from data.cli import UserError
from eval import metrics, provenance
from eval.datasets.benchmark import Benchmark, Captions
from eval.metrics import ranks, recalls
from eval.retrieval.features import image_features, stored_features, text_features
from eval.retrieval.models import TextTower, load_image_tower, load_text_tower, loaded, refuse_pickle
from eval.retrieval.options import Options
from eval.retrieval.result import Example, Ratio, Result, Row, ratio


def settings(
    name: str, images: int, files: Sequence[Path], options: Options, transform: str, seconds: float
) -> dict[str, object]:
    """Everything that the scores depend on, as JSON values.

    `images` is the size of the gallery; `files` are those that the benchmark was read from.
    """
    sources = [source for source in (options.student, options.clip, options.translator) if source]
    stored = [options.image_features] if options.image_features else []
    return {
        "benchmark": name,
        "images": images,
        "protocol": options.protocol.name,
        "transform": transform,
        "max_length": options.max_length,
        "precision": options.precision,
        "device": str(options.device),
        "student": options.student,
        "clip": options.clip,
        **({"translator": options.translator} if options.translator else {}),
        "data": options.data,
        "sha256": provenance.hashes(
            [*files, *stored, *(path for source in sources for path in provenance.model_files(source))]
        ),
        "bootstrap": {"over": "images", "draws": metrics.DRAWS, "seed": metrics.SEED},
        "metric": "Chinese-CLIP: cosine in float32, stable order, a query hits if any positive is in the top k",
        "command": options.command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "seconds": round(seconds, 3),
    }


LONGEST = 160
"""Tokens of a translation; captions are far below, and a model that babbles is stopped."""


def translated(source: str, texts: Sequence[str], device: torch.device, batch_size: int = 32) -> list[str]:
    """`texts` in English by the sequence-to-sequence model of `source`, with that model's own search settings.

    A translation that came out empty is kept as a space: the caption still counts as a query, and fails.
    """
    refuse_pickle(source, "--translator")
    tokenizer = loaded(AutoTokenizer, source, "--translator")
    model = loaded(AutoModelForSeq2SeqLM, source, "--translator", use_safetensors=True).to(device).eval()
    if not model.config.is_encoder_decoder:
        raise UserError(f"--translator {source}: not a sequence-to-sequence model")
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found = [" "] * len(texts)
    for start in tqdm(range(0, len(order), batch_size), desc="translation", unit="batch", leave=False, disable=None):
        batch = order[start : start + batch_size]
        inputs = tokenizer([texts[row] for row in batch], padding=True, truncation=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            said = model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=LONGEST
            )
        for row, text in zip(batch, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True):
            found[row] = text.strip() or " "
    return found


def score(
    name: str,
    benchmark: Benchmark,
    options: Options,
    gallery: Callable[[TextTower], NDArray[np.float32]] | None = None,
) -> Result:
    """Rows for student and teacher on every language that the benchmark has, in one space of image features.

    `gallery` makes the features [images, dim] from the teacher where the benchmark's images are not pictures.
    """
    began = time.monotonic()
    models = load_models(options)  # before the translation: a mistake in them must not cost its time
    english = _in_english(benchmark, options) if options.translator else None
    ready = "the teacher's English names" if gallery else "ready features"
    transform = ready if gallery or options.image_features else options.protocol.transform
    pictures = gallery(models.teacher) if gallery else _picture_features(benchmark, options, models.teacher.width)
    rows = rows_of(benchmark, models, pictures, options, english)
    told = settings(name, len(benchmark.images), benchmark.files, options, transform, time.monotonic() - began)
    return Result(rows, ratios_of(rows), told, tuple(example for row in rows for example in row.examples))


@dataclass(frozen=True)
class Models:
    """A student and its teacher, whose features have one width."""

    student: TextTower
    teacher: TextTower


def load_models(options: Options) -> Models:
    """The text towers of --student and --clip; two of different widths raise UserError."""
    teacher = load_text_tower(options.clip, "--clip", options.dtype, options.device)
    student = load_text_tower(options.student, "--student", options.dtype, options.device)
    if options.max_length > max(options.protocol.max_length, teacher.slots):
        raise UserError(f"--max-length {options.max_length}: the towers have {teacher.slots} slots")
    if student.width != teacher.width:
        raise UserError(
            f"--student {options.student}: its features have width {student.width}, those of --clip {teacher.width}; "
            "it was taught by another model"
        )
    return Models(student, teacher)


def rows_of(
    benchmark: Benchmark,
    models: Models,
    pictures: NDArray[np.float32],
    options: Options,
    english: Sequence[str] | None,
) -> tuple[Row, ...]:
    """All rows against `pictures` [images, dim]; `english` is what a translation model makes of the Chinese captions.

    Rows whose captions were cut are told on stderr.
    """
    rows = tuple(
        measured(role, language, tower, benchmark, pictures, options)
        for role, tower, language in _order(models, benchmark.captions)
    )
    if english is not None:
        said = Captions(tuple(english), benchmark.captions["zh"].pairs)
        spoken = dataclasses.replace(benchmark, captions={"zh": said})
        rows = (*rows, measured("mt+teacher", "zh", models.teacher, spoken, pictures, options))
    for row in rows:
        if row.cut:
            told = f"{row.cut} of {row.captions} captions are over {options.max_length} tokens and were cut"
            print(f"{row.model} {row.language}: {told}", file=sys.stderr)
    return rows


def measured(
    role: str, language: str, tower: TextTower, benchmark: Benchmark, pictures: NDArray[np.float32], options: Options
) -> Row:
    """One row: recalls both ways of the captions against `pictures` [images, dim], and their draws over images."""
    captions = benchmark.captions[language]
    encoded = text_features(tower, captions.texts, options.protocol, options.max_length)
    text_places = ranks(encoded.features, pictures, captions.pairs)
    image_places = ranks(pictures, encoded.features, captions.pairs[:, ::-1])
    six = np.concatenate([recalls(text_places), recalls(image_places)])
    draws = metrics.replicates(metrics.image_table(text_places, image_places, captions.pairs))
    asked = int((image_places >= 0).sum())
    shown = _examples(role, language, benchmark, encoded.features, pictures, text_places, options.examples)
    return Row(role, language, np.append(six, six.mean()), draws, len(captions.texts), asked, encoded.cut, shown)


def _examples(
    role: str,
    language: str,
    benchmark: Benchmark,
    texts: NDArray[np.float32],
    pictures: NDArray[np.float32],
    places: NDArray[np.int64],
    count: int,
) -> tuple[Example, ...]:
    """`count` captions spread evenly over the file, the same for every model, with the images that they found."""
    captions = benchmark.captions[language]
    chosen = np.unique(np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)).tolist()
    found = []
    for number in chosen:
        first = np.argsort(-(pictures @ texts[number]), kind="stable")[:5]
        right = captions.pairs[captions.pairs[:, 0] == number, 1]
        names = [tuple(benchmark.images[image] for image in images) for images in (right, first)]
        found.append(Example(role, language, captions.texts[number], names[0], names[1], int(places[number]) + 1))
    return tuple(found)


def _in_english(benchmark: Benchmark, options: Options) -> list[str]:
    """The Chinese captions in the translator's English."""
    assert options.translator is not None
    if "zh" not in benchmark.captions:
        raise UserError(f"--translator: {options.data} has no Chinese captions to translate; leave it out")
    return translated(options.translator, benchmark.captions["zh"].texts, options.device)


def english_gallery(teacher: TextTower, benchmark: Benchmark, options: Options) -> NDArray[np.float32]:
    """What the teacher makes of the English captions, where these stand for the pictures."""
    return text_features(teacher, benchmark.captions["en"].texts, options.protocol, options.max_length).features


def _picture_features(benchmark: Benchmark, options: Options, width: int) -> NDArray[np.float32]:
    if options.image_features is not None:
        return stored_features(options.image_features, benchmark.images, width)
    tower = load_image_tower(options.clip, "--clip", options.dtype, options.device)
    return image_features(tower, benchmark.images, benchmark.picture, options.protocol.transform)


def _order(models: Models, captions: Mapping[str, Captions]) -> list[tuple[str, TextTower, str]]:
    """The student first, Chinese first; then the ceiling, then the floor."""
    known = (("zh", "zh_hant"), ("en", "en_all"))
    zh, english = ([language for language in some if language in captions] for some in known)
    mine = [("student", models.student, language) for language in [*zh, *english]]
    return [*mine, *(("teacher", models.teacher, language) for language in [*english, *zh])]


def ratios_of(rows: tuple[Row, ...]) -> tuple[Ratio, ...]:
    """The student on either language against the ceiling, and English with all captions against itself."""
    row = {(each.model, each.language): each for each in rows}
    wanted = [
        (("student", "zh"), ("teacher", "en")),
        (("student", "zh_hant"), ("teacher", "en")),
        (("student", "en"), ("teacher", "en")),
        (("student", "en_all"), ("teacher", "en_all")),
        (("mt+teacher", "zh"), ("teacher", "en")),
    ]
    found = [ratio(row[mine], row[its]) for mine, its in wanted if mine in row and its in row]
    return tuple(each for each in found if each is not None)
