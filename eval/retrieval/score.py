"""Scores of a student and its teacher on one retrieval benchmark: gallery, rows, ratios, settings."""

import dataclasses
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cli import UserError, commit, one_line, versions
from data.files import hashes
from eval import metrics
from eval.datasets.benchmark import CaptionSet, RetrievalBenchmark
from eval.metrics import positive_ranks, recalls
from eval.retrieval.images import image_features, load_image_tower
from eval.retrieval.models import TextTower, load_text_tower, model_files, text_features
from eval.retrieval.result import Example, Options, RetrievalResult, ScoreRow, recall_ratios

ZH_LANGUAGES, EN_LANGUAGES = ("zh", "zh_hant"), ("en", "en_all")


@dataclass(frozen=True)
class Models:
    """A student and its teacher, whose features have one width."""

    student: TextTower
    teacher: TextTower


@dataclass(frozen=True)
class Gallery:
    """What captions are compared with: features [items, dim], L2-normalised; `source` names their origin in results."""

    features: NDArray[np.float32]
    source: str


def score_benchmark(name: str, benchmark: RetrievalBenchmark, options: Options) -> RetrievalResult:
    """Rows for student and teacher on every language that the benchmark has, in the teacher's space."""
    start = time.monotonic()
    models = load_models(options)
    translations = _translate_captions(benchmark, options) if options.translator else None
    gallery = make_gallery(benchmark, options, models.teacher)
    rows = score_rows(benchmark, models, gallery, options, translations)
    settings = score_settings(name, benchmark, gallery.source, options, time.monotonic() - start)
    return RetrievalResult(rows, recall_ratios(rows), settings)


def load_models(options: Options) -> Models:
    """The text towers of --student and --clip; UserError for two widths."""
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


def make_gallery(benchmark: RetrievalBenchmark, options: Options, teacher: TextTower) -> Gallery:
    """Pictures, their stored features, or the teacher's English where the benchmark has no pictures."""
    if benchmark.read_image is None:
        return text_gallery(teacher, benchmark, options, "the teacher's English names")
    if options.image_features is not None:
        return Gallery(load_features(options.image_features, benchmark.images, teacher.feature_dim), "ready features")
    tower = load_image_tower(options.clip, "--clip", options.dtype, options.device)
    transform = options.protocol.transform
    return Gallery(image_features(tower, benchmark.images, benchmark.read_image, transform), transform)


def text_gallery(teacher: TextTower, benchmark: RetrievalBenchmark, options: Options, source: str) -> Gallery:
    """The teacher's features of the English captions."""
    return Gallery(
        text_features(teacher, benchmark.captions["en"].texts, options.protocol, options.max_length).features, source
    )


def score_rows(
    benchmark: RetrievalBenchmark,
    models: Models,
    gallery: Gallery,
    options: Options,
    translations: Sequence[str] | None = None,
) -> tuple[ScoreRow, ...]:
    """All rows against `gallery`; `translations` are the Chinese captions in the English of a translation model.

    Prints a warning where captions were cut.
    """
    rows = [
        score_row(role, language, tower, benchmark, gallery, options)
        for role, tower, language in _row_order(models, benchmark.captions)
    ]
    if translations is not None:
        translated = {"zh": CaptionSet(tuple(translations), benchmark.captions["zh"].pairs)}
        mt_benchmark = dataclasses.replace(benchmark, captions=translated)
        rows.append(score_row("mt+teacher", "zh", models.teacher, mt_benchmark, gallery, options))
    for row in rows:
        if row.cut:
            message = f"{row.cut} of {row.captions} captions are over {options.max_length} tokens and were cut"
            print(f"{row.model} {row.language}: {message}", file=sys.stderr)
    return tuple(rows)


def _row_order(models: Models, captions: Mapping[str, CaptionSet]) -> list[tuple[str, TextTower, str]]:
    """The teacher on translations of the Chinese; then the student, Chinese first; then the teacher, English first."""
    zh = [language for language in ZH_LANGUAGES if language in captions]
    en = [language for language in EN_LANGUAGES if language in captions]
    return [
        *(("teacher", models.teacher, language) for language in ("zh_en",) if language in captions),
        *(("student", models.student, language) for language in (*zh, *en)),
        *(("teacher", models.teacher, language) for language in (*en, *zh)),
    ]


def score_row(
    role: str, language: str, tower: TextTower, benchmark: RetrievalBenchmark, gallery: Gallery, options: Options
) -> ScoreRow:
    """Recalls of the captions of `language` in both directions, with their bootstrap replicates."""
    captions = benchmark.captions[language]
    encoded = text_features(tower, captions.texts, options.protocol, options.max_length)
    text_ranks = positive_ranks(encoded.features, gallery.features, captions.pairs)
    image_ranks = positive_ranks(gallery.features, encoded.features, captions.pairs[:, ::-1])
    recall_values = np.concatenate([recalls(text_ranks), recalls(image_ranks)])
    return ScoreRow(
        role,
        language,
        scores=np.append(recall_values, recall_values.mean()),
        replicates=metrics.bootstrap_recalls(metrics.image_table(text_ranks, image_ranks, captions.pairs)),
        captions=len(captions.texts),
        images=int((image_ranks >= 0).sum()),
        cut=encoded.cut,
        examples=_examples(role, language, benchmark, encoded.features, gallery, text_ranks, options.examples),
    )


def _examples(
    role: str,
    language: str,
    benchmark: RetrievalBenchmark,
    queries: NDArray[np.float32],
    gallery: Gallery,
    text_ranks: NDArray[np.int64],
    count: int,
) -> tuple[Example, ...]:
    """`count` captions spread evenly over the file, the same for every model, with the images that they found."""
    captions = benchmark.captions[language]
    examples = []
    for number in np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).astype(int)).tolist():
        top_five = np.argsort(-(gallery.features @ queries[number]), kind="stable")[:5]
        positives = captions.pairs[captions.pairs[:, 0] == number, 1]
        right, found = (tuple(benchmark.images[image] for image in images) for images in (positives, top_five))
        examples.append(Example(role, language, captions.texts[number], right, found, int(text_ranks[number]) + 1))
    return tuple(examples)


def _translate_captions(benchmark: RetrievalBenchmark, options: Options) -> list[str]:
    from eval.retrieval.translators import translate_to_english  # its imports are those of training

    assert options.translator is not None
    if "zh" not in benchmark.captions:
        raise UserError(f"--translator: {options.data} has no Chinese captions to translate; leave it out")
    return translate_to_english(options.translator, benchmark.captions["zh"].texts, options.device)


def load_features(path: Path, images: Sequence[str], width: int) -> NDArray[np.float32]:
    """[images, dim] L2-normalised: `features` of the .npz `path` in the order of `images`, by its `ids`.

    `width` is that of the text tower. Missing, doubled or misfitting features raise UserError.
    """
    ids, features = _load_arrays(path)
    if features.shape[1] != width:
        raise UserError(
            f"{path}: features of width {features.shape[1]}, but the text tower of --clip has width {width}; "
            "they are not of one model"
        )
    row_of_image = {name: number for number, name in enumerate(ids)}
    if len(row_of_image) != len(ids):
        raise UserError(f"{path}: ids holds {len(ids) - len(row_of_image)} names twice")
    missing = [name for name in images if name not in row_of_image]
    if missing:
        raise UserError(
            f"{path}: no features of {len(missing)} of {len(images)} images, {missing[0]!r} first (its own first is "
            f"{ids[0]!r})"
        )
    try:
        return metrics.l2_normalise(features[[row_of_image[name] for name in images]].astype(np.float32))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _load_arrays(path: Path) -> tuple[list[str], NDArray[np.floating]]:
    if not path.is_file():
        raise UserError(f"--image-features {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            ids, features = archive["ids"], archive["features"]
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; it needs the arrays ids and features") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        problem = f"not a readable .npz ({one_line(error)})"
        raise UserError(f"{path}: {problem}; save it with numpy.savez and no objects") from error
    if features.ndim != 2 or ids.ndim != 1 or len(ids) != len(features) or len(ids) == 0:
        raise UserError(f"{path}: ids {ids.shape} and features {features.shape} must be [images] and [images, dim]")
    return [str(name) for name in ids], features


def score_settings(
    name: str, benchmark: RetrievalBenchmark, gallery_source: str, options: Options, seconds: float
) -> dict[str, object]:
    """Everything that the scores depend on, as JSON values."""
    models = [source for source in (options.student, options.clip, options.translator) if source]
    stored = [options.image_features] if options.image_features else []
    weights = [path for source in models for path in model_files(source)]
    return {
        "benchmark": name,
        "images": len(benchmark.images),
        "protocol": options.protocol.name,
        "transform": gallery_source,
        "max_length": options.max_length,
        "precision": options.precision,
        "device": str(options.device),
        "student": options.student,
        "clip": options.clip,
        **({"translator": options.translator} if options.translator else {}),
        "data": options.data,
        "sha256": hashes([*benchmark.files, *stored, *weights]),
        "bootstrap": {"over": "images", "draws": metrics.DRAWS, "seed": metrics.BOOTSTRAP_SEED},
        "metric": "Chinese-CLIP: cosine in float32, stable order, a query hits if any positive is in the top k",
        "command": options.command,
        "commit": commit(),
        "versions": versions(),
        "seconds": round(seconds, 3),
    }
