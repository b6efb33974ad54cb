"""Benchmarks as data sets of the Hugging Face Hub: by id, or as a local copy of the folder."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.cli import UserError, one_line
from data.sources.benchmark_files import BenchmarkRow, caption_list, text_key_language

ID_COLUMNS = ("image_id", "img_id", "filename", "file_name", "img_path", "id")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class HubTable:
    """Captions and image ids of a data set in its order; `files` are those of a local copy."""

    rows: list[BenchmarkRow]
    images: list[str]
    read_image: Callable[[str], bytes] | None
    files: tuple[Path, ...]


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form owner/name of the Hub and not that of a path."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None and Path(name).suffix not in {".csv", ".jsonl"}


def read_hub(name: str) -> HubTable:
    """Read the test rows of `name`; columns are known by name, the language of plain ones by the captions' script."""
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # `datasets` raises a dozen unrelated classes for a missing id, no network, a bad file
        raise UserError(f"--data {name}: cannot be read as a data set of the Hub ({one_line(error)})") from error
    rows = splits["test"] if "test" in splits else splits[next(iter(splits))]
    if "split" in rows.column_names:  # the Flickr30K of nlphuji: all rows under `test`, the true split in a column
        true_split = rows["split"]
        rows = rows.select([number for number, split in enumerate(true_split) if split == "test"])
    image = next((column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    columns = _caption_columns(rows.column_names)
    if not columns:
        raise UserError(f"--data {name}: no column of captions among {', '.join(rows.column_names)}")
    identity = next((column for column in ID_COLUMNS if column in rows.column_names), None)
    ids = [str(value) for value in rows[identity]] if identity else [str(number) for number in range(len(rows))]
    captions = list(_captions(rows.select_columns(list(columns)), columns, ids))
    read_image = _image_reader(rows.cast_column(image, datasets.Image(decode=False)), image, ids) if image else None
    files = tuple(sorted(Path(name).rglob("*.parquet"))) if Path(name).is_dir() else ()
    return HubTable(captions, ids, read_image, files)


def _caption_columns(names: list[str]) -> dict[str, str]:
    """Column -> language; "" where the script of the caption must tell."""
    columns = {name: language for name in names if (language := text_key_language(name)) is not None}
    return {name: language for name, language in columns.items() if language} or columns


def _captions(rows: Any, columns: dict[str, str], ids: list[str]) -> Iterator[BenchmarkRow]:  # noqa: ANN401  datasets is untyped
    for number, row in enumerate(rows):
        for column, language in columns.items():
            value, where = row[column], f"row {number}"
            for text in [] if value is None else caption_list(value, where, column):
                if not text.strip():
                    raise UserError(f"{where}: {column} holds an empty caption; remove it")
                yield BenchmarkRow(where, language or ("zh" if CHINESE.search(text) else "en"), text, (ids[number],))


def _image_reader(rows: Any, column: str, ids: list[str]) -> Callable[[str], bytes]:  # noqa: ANN401  datasets is untyped
    row_of_image = {image: position for position, image in enumerate(ids)}

    def read_image(image: str) -> bytes:
        value = rows[row_of_image[image]][column]
        content = value and (value["bytes"] or Path(value["path"]).read_bytes())
        if not content:
            raise UserError(f"image {image}: its row has no picture")
        return bytes(content)

    return read_image
