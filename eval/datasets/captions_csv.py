"""The original layout of Flickr30K-CN: a CSV with the columns image,caption and a folder of pictures."""

import csv
from collections.abc import Iterator
from pathlib import Path

from data.command import UserError
from eval.benchmark import Benchmark, Caption, assemble
from eval.datasets.lines import text_lines
from eval.datasets.pictures import folder_pictures

COLUMNS = ("image", "caption")


def read_csv(path: Path, images: Path | None, language: str) -> Benchmark:
    """Read `path`, one caption a line after the heading `image,caption`; other columns are let be."""
    return assemble(_rows(path, language), folder_pictures(path, images), (path,))


def _rows(path: Path, language: str) -> Iterator[Caption]:
    lines = [line for _, line in text_lines(path)]
    reader = csv.DictReader(lines, strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            heading = ",".join(reader.fieldnames or [])
            raise UserError(f"{path}:1: no column {missing[0]!r} in {heading[:70]!r}; the heading is image,caption")
        for row in reader:
            image, caption = row["image"], row["caption"]
            if not image or not caption or not caption.strip():
                raise UserError(f"{path}:{reader.line_num}: the row lacks its image or its caption")
            yield Caption(language, caption, (image,))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); quote captions that hold commas") from error
