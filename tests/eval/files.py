"""One small benchmark, written in each of the layouts in which benchmarks are published."""

import base64
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from eval.datasets.benchmark import RetrievalBenchmark

IMAGES = 12
KINDS = ("猫", "狗", "机械狗", "山", "船", "月亮")
ENGLISH = ("cat", "dog", "robot dog", "mountain", "boat", "moon")


@dataclass(frozen=True)
class Files:
    """Where the same captions and pictures lie in each layout."""

    chinese_clip: Path
    csv: Path
    jsonl: Path
    hub: Path


def picture(number: int) -> bytes:
    """A PNG of its own colours and size."""
    noise = np.random.default_rng(number).integers(0, 256, (40 + number, 60 - number, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def read_image(benchmark: RetrievalBenchmark, image: str) -> bytes:
    """The bytes of a picture of a benchmark that has pictures."""
    assert benchmark.read_image is not None
    return benchmark.read_image(image)


def name(number: int) -> str:
    """The image id, as Flickr names its files."""
    return f"{1000 + 37 * number}.jpg"


def chinese(number: int) -> list[str]:
    """Two captions an image."""
    return [f"一只{KINDS[number % 6]}，第{number}张", f"{number}号：“{KINDS[number % 6]}”"]


def english(number: int) -> list[str]:
    """One caption an image."""
    return [f"The {ENGLISH[number % 6]}, number {number}"]


def write_files(folder: Path) -> Files:
    """Write every layout below `folder`."""
    every = range(IMAGES)
    clip = folder / "chinese-clip"
    clip.mkdir()
    rows = [(number, text) for number in every for text in chinese(number)]
    (clip / "test_texts.jsonl").write_text(
        "".join(
            json.dumps({"text_id": i, "text": text, "image_ids": [1000 + 37 * number]}, ensure_ascii=False) + "\n"
            for i, (number, text) in enumerate(rows)
        ),
        encoding="utf-8",
    )
    (clip / "test_imgs.tsv").write_text(
        "".join(f"{1000 + 37 * number}\t{base64.b64encode(picture(number)).decode()}\n" for number in every)
    )
    original = folder / "original"
    (original / "flickr30k-images").mkdir(parents=True)
    for number in every:
        (original / "flickr30k-images" / name(number)).write_bytes(picture(number))
    with (original / "flickr30k_cn_test.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        writer.writerows((name(number), text) for number, text in rows)
    jsonl = original / "bilingual.jsonl"
    jsonl.write_text(
        "".join(
            json.dumps({"image": name(number), "zh": chinese(number), "en": english(number)}, ensure_ascii=False) + "\n"
            for number in every
        ),
        encoding="utf-8",
    )
    return Files(clip, original / "flickr30k_cn_test.csv", jsonl, write_hub(folder / "hub"))


def write_hub(folder: Path) -> Path:
    """The form of lmms-lab/flickr30k: parquet under data/test-*, pictures embedded, a list of captions a row."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.List(datasets.Value("string")),
            "img_id": datasets.Value("string"),
            "filename": datasets.Value("string"),
        }
    )
    columns = {
        "image": [{"bytes": picture(number), "path": name(number)} for number in range(IMAGES)],
        "caption": [chinese(number) + english(number) for number in range(IMAGES)],
        "img_id": [str(number) for number in range(IMAGES)],
        "filename": [name(number) for number in range(IMAGES)],
    }
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test-*\n---\n"
    )
    return folder
