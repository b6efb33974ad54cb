"""`python -m eval.nouns`: class names, Chinese to English and back, or as zero-shot labels of pictures.

`--data` holds the Chinese names and `--english` the English ones, line by line the same classes. Without `--images`,
the gallery is the teacher's features of the English names: text to image is "Chinese name to English name", image to
text the way back. With `--images`, a folder with one folder of pictures per class (sorted by name, in the order of the
lines), image to text R@1 is zero-shot accuracy.
"""

from pathlib import Path

import numpy as np

from data.cli import UserError, run_cli
from data.files import read_json
from eval.datasets.benchmark import IMAGE_SUFFIXES, CaptionSet, RetrievalBenchmark, text_lines
from eval.retrieval.command import parse_options
from eval.retrieval.result import RetrievalResult

TEMPLATES = {"zh": "一张{}的照片。", "en": "a photo of a {}."}
"""Around each name, with pictures; OpenAI's first template and its translation."""


def class_names(path: Path) -> tuple[str, ...]:
    """Class names: one a line, or a JSON list, or CLIP_benchmark's JSON with the key imagenet1k."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file with one class name a line")
    if path.suffix != ".json":
        return tuple(line.strip() for _, line in text_lines(path))
    value = read_json(path)
    names = value.get("imagenet1k") if isinstance(value, dict) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{path}: needs a list of class names, or such a list under the key imagenet1k")
    return tuple(names)


def label_benchmark(files: tuple[Path, Path]) -> RetrievalBenchmark:
    """Names in both languages; the "images" are the classes themselves."""
    zh, en = (class_names(path) for path in files)
    if len(zh) != len(en) or not zh:
        raise UserError(f"{files[0]}: {len(zh)} names, {files[1]}: {len(en)}; both must name the same classes in order")
    pairs = np.repeat(np.arange(len(zh))[:, None], 2, axis=1)
    numbered = tuple(f"{number}: {name}" for number, name in enumerate(en))
    return RetrievalBenchmark(numbered, {"zh": CaptionSet(zh, pairs), "en": CaptionSet(en, pairs)}, None, files)


def picture_benchmark(labels: RetrievalBenchmark, folder: Path) -> RetrievalBenchmark:
    """Pictures of `folder`/CLASS/, with the names of `labels` in a template as their captions."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(classes) != len(labels.images):
        raise UserError(f"--images {folder}: {len(classes)} folders of classes for {len(labels.images)} names")
    paths = [(label, path) for label, class_folder in enumerate(classes) for path in sorted(class_folder.iterdir())]
    pictures = [(label, path) for label, path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    if empty := set(range(len(classes))) - {label for label, _ in pictures}:
        raise UserError(f"--images {folder}: no pictures in {classes[min(empty)].name}/; a class cannot go without")
    pairs = np.array([(label, image) for image, (label, _) in enumerate(pictures)], dtype=np.int64)
    captions = {
        language: CaptionSet(tuple(TEMPLATES[language].format(name) for name in names.texts), pairs)
        for language, names in labels.captions.items()
    }
    images = tuple(str(path.relative_to(folder)) for _, path in pictures)
    return RetrievalBenchmark(images, captions, lambda image: (folder / image).read_bytes(), labels.files)


def run_nouns(arguments: list[str] | None = None) -> RetrievalResult:
    """Score, print the table and write the JSON."""
    options = parse_options(
        "eval.nouns", "Class names, Chinese to English and back, or as labels of pictures.", arguments
    )
    if options.english is None:
        raise UserError("--english: missing; give the English names of the classes in --data")
    benchmark = label_benchmark((Path(options.data), Path(options.english)))
    title = "nouns"
    if options.images is not None:
        benchmark, title = picture_benchmark(benchmark, options.images), "nouns as labels of pictures"
    from eval.retrieval.score import score_benchmark  # seconds of imports, which no mistake above should wait for

    return score_benchmark(options.title or title, benchmark, options).publish(options.out)


if __name__ == "__main__":
    run_cli(run_nouns)
