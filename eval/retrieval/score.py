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
from eval.datasets.benchmark import CaptionSet, RetrievalBenchmark
from eval.metrics import positive_ranks, recalls
from eval.retrieval.features import image_features, load_features, text_features
from eval.retrieval.models import TextTower, check_safetensors, load_image_tower, load_text_tower, load_transformers
from eval.retrieval.options import Options
from eval.retrieval.result import Example, Ratio, RetrievalResult, ScoreRow, recall_ratio


def score_settings(
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
        "bootstrap": {"over": "images", "draws": metrics.DRAWS, "seed": metrics.BOOTSTRAP_SEED},
        "metric": "Chinese-CLIP: cosine in float32, stable order, a query hits if any positive is in the top k",
        "command": options.command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "seconds": round(seconds, 3),
    }


MAX_NEW_TOKENS = 160
"""Tokens of a translation; captions are far below, and a model that babbles is stopped."""


def translate_to_english(source: str, texts: Sequence[str], device: torch.device, batch_size: int = 32) -> list[str]:
    """`texts` in English by the sequence-to-sequence model of `source`, with that model's own search settings.

    A translation that came out empty is kept as a space: the caption still counts as a query, and fails.
    """
    check_safetensors(source, "--translator")
    tokenizer = load_transformers(AutoTokenizer, source, "--translator")
    model = load_transformers(AutoModelForSeq2SeqLM, source, "--translator", use_safetensors=True).to(device).eval()
    if not model.config.is_encoder_decoder:
        raise UserError(f"--translator {source}: not a sequence-to-sequence model")
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    translations = [" "] * len(texts)
    for start in tqdm(range(0, len(order), batch_size), desc="translation", unit="batch", leave=False, disable=None):
        batch = order[start : start + batch_size]
        inputs = tokenizer([texts[row] for row in batch], padding=True, truncation=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            output_ids = model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=MAX_NEW_TOKENS
            )
        for row, text in zip(batch, tokenizer.batch_decode(output_ids, skip_special_tokens=True), strict=True):
            translations[row] = text.strip() or " "
    return translations


def score(
    name: str,
    benchmark: RetrievalBenchmark,
    options: Options,
    make_gallery: Callable[[TextTower], NDArray[np.float32]] | None = None,
) -> RetrievalResult:
    """Rows for student and teacher on every language that the benchmark has, in one space of image features.

    `gallery` makes the features [images, dim] from the teacher where the benchmark's images are not pictures.
    """
    start = time.monotonic()
    models = load_models(options)  # before the translation: a mistake in them must not cost its time
    english = _translate_captions(benchmark, options) if options.translator else None
    gallery_label = "the teacher's English names" if make_gallery else "ready features"
    transform = gallery_label if make_gallery or options.image_features else options.protocol.transform
    gallery_features = (
        make_gallery(models.teacher) if make_gallery else _image_gallery(benchmark, options, models.teacher.feature_dim)
    )
    rows = score_rows(benchmark, models, gallery_features, options, english)
    run_settings = score_settings(
        name, len(benchmark.images), benchmark.files, options, transform, time.monotonic() - start
    )
    return RetrievalResult(
        rows, recall_ratios(rows), run_settings, tuple(example for row in rows for example in row.examples)
    )


@dataclass(frozen=True)
class Models:
    """A student and its teacher, whose features have one width."""

    student: TextTower
    teacher: TextTower


def load_models(options: Options) -> Models:
    """The text towers of --student and --clip; two of different widths raise UserError."""
    teacher = load_text_tower(options.clip, "--clip", options.dtype, options.device)
    student = load_text_tower(options.student, "--student", options.dtype, options.device)
    if options.max_length > max(options.protocol.max_length, teacher.max_length):
        raise UserError(f"--max-length {options.max_length}: the towers have {teacher.max_length} slots")
    if student.feature_dim != teacher.feature_dim:
        raise UserError(
            f"--student {options.student}: its features have width {student.feature_dim}, "
            f"those of --clip {teacher.feature_dim}; "
            "it was taught by another model"
        )
    return Models(student, teacher)


def score_rows(
    benchmark: RetrievalBenchmark,
    models: Models,
    gallery_features: NDArray[np.float32],
    options: Options,
    english: Sequence[str] | None,
) -> tuple[ScoreRow, ...]:
    """All rows against `pictures` [images, dim]; `english` is what a translation model makes of the Chinese captions.

    Rows whose captions were cut are told on stderr.
    """
    rows = tuple(
        score_row(role, language, tower, benchmark, gallery_features, options)
        for role, tower, language in _row_order(models, benchmark.captions)
    )
    if english is not None:
        translated_captions = CaptionSet(tuple(english), benchmark.captions["zh"].pairs)
        translated_benchmark = dataclasses.replace(benchmark, captions={"zh": translated_captions})
        rows = (*rows, score_row("mt+teacher", "zh", models.teacher, translated_benchmark, gallery_features, options))
    for row in rows:
        if row.cut:
            message = f"{row.cut} of {row.captions} captions are over {options.max_length} tokens and were cut"
            print(f"{row.model} {row.language}: {message}", file=sys.stderr)
    return rows


def score_row(
    role: str,
    language: str,
    tower: TextTower,
    benchmark: RetrievalBenchmark,
    gallery_features: NDArray[np.float32],
    options: Options,
) -> ScoreRow:
    """One row: recalls both ways of the captions against `pictures` [images, dim], and their draws over images."""
    captions = benchmark.captions[language]
    encoded = text_features(tower, captions.texts, options.protocol, options.max_length)
    text_ranks = positive_ranks(encoded.features, gallery_features, captions.pairs)
    image_ranks = positive_ranks(gallery_features, encoded.features, captions.pairs[:, ::-1])
    recall_values = np.concatenate([recalls(text_ranks), recalls(image_ranks)])
    replicates = metrics.bootstrap_recalls(metrics.image_table(text_ranks, image_ranks, captions.pairs))
    num_queries = int((image_ranks >= 0).sum())
    examples = _examples(role, language, benchmark, encoded.features, gallery_features, text_ranks, options.examples)
    return ScoreRow(
        role,
        language,
        np.append(recall_values, recall_values.mean()),
        replicates,
        len(captions.texts),
        num_queries,
        encoded.cut,
        examples,
    )


def _examples(
    role: str,
    language: str,
    benchmark: RetrievalBenchmark,
    texts: NDArray[np.float32],
    gallery_features: NDArray[np.float32],
    text_ranks: NDArray[np.int64],
    count: int,
) -> tuple[Example, ...]:
    """`count` captions spread evenly over the file, the same for every model, with the images that they found."""
    captions = benchmark.captions[language]
    caption_indices = np.unique(np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)).tolist()
    examples = []
    for number in caption_indices:
        top_five = np.argsort(-(gallery_features @ texts[number]), kind="stable")[:5]
        positives = captions.pairs[captions.pairs[:, 0] == number, 1]
        names = [tuple(benchmark.images[image] for image in images) for images in (positives, top_five)]
        examples.append(
            Example(role, language, captions.texts[number], names[0], names[1], int(text_ranks[number]) + 1)
        )
    return tuple(examples)


def _translate_captions(benchmark: RetrievalBenchmark, options: Options) -> list[str]:
    """The Chinese captions in the translator's English."""
    assert options.translator is not None
    if "zh" not in benchmark.captions:
        raise UserError(f"--translator: {options.data} has no Chinese captions to translate; leave it out")
    return translate_to_english(options.translator, benchmark.captions["zh"].texts, options.device)


def teacher_text_gallery(teacher: TextTower, benchmark: RetrievalBenchmark, options: Options) -> NDArray[np.float32]:
    """What the teacher makes of the English captions, where these stand for the pictures."""
    return text_features(teacher, benchmark.captions["en"].texts, options.protocol, options.max_length).features


def _image_gallery(benchmark: RetrievalBenchmark, options: Options, width: int) -> NDArray[np.float32]:
    if options.image_features is not None:
        return load_features(options.image_features, benchmark.images, width)
    tower = load_image_tower(options.clip, "--clip", options.dtype, options.device)
    return image_features(tower, benchmark.images, benchmark.read_image, options.protocol.transform)


def _row_order(models: Models, captions: Mapping[str, CaptionSet]) -> list[tuple[str, TextTower, str]]:
    """The student first, Chinese first; then the ceiling, then the floor."""
    language_groups = (("zh", "zh_hant"), ("en", "en_all"))
    zh, english = ([language for language in some if language in captions] for some in language_groups)
    student_rows = [("student", models.student, language) for language in [*zh, *english]]
    return [*student_rows, *(("teacher", models.teacher, language) for language in [*english, *zh])]


def recall_ratios(rows: tuple[ScoreRow, ...]) -> tuple[Ratio, ...]:
    """The student on either language against the ceiling, and English with all captions against itself."""
    row_by_key = {(each.model, each.language): each for each in rows}
    compared_rows = [
        (("student", "zh"), ("teacher", "en")),
        (("student", "zh_hant"), ("teacher", "en")),
        (("student", "en"), ("teacher", "en")),
        (("student", "en_all"), ("teacher", "en_all")),
        (("mt+teacher", "zh"), ("teacher", "en")),
    ]
    ratios = [
        recall_ratio(row_by_key[mine], row_by_key[its])
        for mine, its in compared_rows
        if mine in row_by_key and its in row_by_key
    ]
    return tuple(each for each in ratios if each is not None)
