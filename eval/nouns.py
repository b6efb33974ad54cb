"""`python -m eval.nouns`: names of classes, Chinese to English and back, or as zero-shot labels of pictures.

`--data` holds the Chinese names and `--english` the English ones, line by line the same classes. Without `--images`,
the gallery is what the teacher makes of the English names: text to image is then "Chinese name to English name", and
image to text the way back. With `--images`, a folder with one folder of pictures a class (sorted by name, as the lines
are), image to text R@1 is zero-shot accuracy.
"""

from pathlib import Path

import numpy as np

from data.cli import UserError, run_cli
from data.files import read_json, write_json
from eval.datasets.benchmark import IMAGE_ENDINGS, CaptionSet, RetrievalBenchmark, no_image, text_lines
from eval.retrieval.options import parse_options
from eval.retrieval.result import RetrievalResult, result_json, terminal_table
from eval.retrieval.score import score, teacher_text_gallery

TEMPLATES = {"zh": "一张{}的照片。", "en": "a photo of a {}."}
"""Around each name where pictures are asked; OpenAI's first template and its translation."""


def class_names(path: Path) -> tuple[str, ...]:
    """Class names: one a line, or a JSON list, or CLIP_benchmark's JSON with the key imagenet1k."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file with one class name a line")
    if path.suffix != ".json":
        return tuple(line.strip() for _, line in text_lines(path))
    value = read_json(path)
    listed = value.get("imagenet1k") if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) and name.strip() for name in listed):
        raise UserError(f"{path}: needs a list of class names, or such a list under the key imagenet1k")
    return tuple(listed)


def label_benchmark(files: tuple[Path, Path]) -> RetrievalBenchmark:
    """Names in both languages; the "images" are the classes themselves."""
    zh, en = (class_names(path) for path in files)
    if len(zh) != len(en) or not zh:
        raise UserError(f"{files[0]}: {len(zh)} names, {files[1]}: {len(en)}; both must name the same classes in order")
    pairs = np.repeat(np.arange(len(zh))[:, None], 2, axis=1)
    numbered = tuple(f"{number}: {name}" for number, name in enumerate(en))
    return RetrievalBenchmark(numbered, {"zh": CaptionSet(zh, pairs), "en": CaptionSet(en, pairs)}, no_image, files)


def picture_benchmark(labels: RetrievalBenchmark, folder: Path) -> RetrievalBenchmark:
    """Pictures of `folder`/CLASS/, with the names of `labels` in a template as their captions."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(classes) != len(labels.images):
        raise UserError(f"--images {folder}: {len(classes)} folders of classes for {len(labels.images)} names")
    paths = [(number, path) for number, each in enumerate(classes) for path in sorted(each.iterdir())]
    kept = [(number, path) for number, path in paths if path.suffix.lower() in IMAGE_ENDINGS]
    if empty := set(range(len(classes))) - {number for number, _ in kept}:
        raise UserError(f"--images {folder}: no pictures in {classes[min(empty)].name}/; a class cannot go without")
    pairs = np.array([(number, image) for image, (number, _) in enumerate(kept)], dtype=np.int64)
    captions = {
        language: CaptionSet(tuple(TEMPLATES[language].format(name) for name in own.texts), pairs)
        for language, own in labels.captions.items()
    }
    images = tuple(str(path.relative_to(folder)) for _, path in kept)
    return RetrievalBenchmark(images, captions, lambda image: (folder / image).read_bytes(), labels.files)


def run_nouns(arguments: list[str] | None = None) -> RetrievalResult:
    """Score, print the table and write the JSON, as the retrieval benchmarks do."""
    options = parse_options(
        "eval.nouns", "Class names, Chinese to English and back, or as labels of pictures.", arguments
    )
    if options.english is None:
        raise UserError("--english: missing; give the English names of the classes in --data")
    labels = label_benchmark((Path(options.data), Path(options.english)))
    if options.images is not None:
        title = options.title or "nouns as labels of pictures"
        result = score(title, picture_benchmark(labels, options.images), options)
    else:
        title = options.title or "nouns"
        result = score(title, labels, options, lambda teacher: teacher_text_gallery(teacher, labels, options))
    print(terminal_table(result))
    if options.out is not None:
        write_json(result_json(result), options.out)
    return result


def main() -> None:
    """Score a student beside its teacher; see the head of this file for the options."""
    run_nouns()


if __name__ == "__main__":
    run_cli(main)
