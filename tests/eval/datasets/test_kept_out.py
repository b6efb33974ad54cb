"""Every benchmark layout that `eval` scores, the build of a corpus keeps out: by its texts and by its images."""

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data.clean.benchmarks import load_benchmark
from data.cli import UserError
from data.sources.benchmark_files import image_id, read_benchmark_rows
from eval.datasets.benchmark import read_benchmark
from tests.data.corpora import built, write_config
from tests.eval import files as small
from tests.eval.files import Files

ROWS = [(small.name(n), text) for n in range(small.IMAGES) for text in small.chinese(n)]
IMAGES = list(dict.fromkeys(image for image, _ in ROWS))


def joined(template: str) -> bytes:
    """A line a caption; `{n}` is its number among those of its image."""
    lines = [template.format(image=image, n=k % 2, text=text) for k, (image, text) in enumerate(ROWS)]
    return ("\n".join(lines) + "\n").encode()


def coco() -> bytes:
    images = [{"id": n, "file_name": f"val2014/{image}"} for n, image in enumerate(IMAGES)]
    notes = [{"id": k, "image_id": IMAGES.index(image), "caption": text} for k, (image, text) in enumerate(ROWS)]
    return json.dumps({"images": images, "annotations": notes}).encode()


def karpathy() -> bytes:
    images = [
        {"filename": image, "split": "test", "sentences": [{"raw": t, "tokens": []} for i, t in ROWS if i == image]}
        for image in IMAGES
    ]
    return json.dumps({"images": images, "dataset": "flickr30k"}).encode()


def by_image(record: Callable[[str, list[str]], Any]) -> bytes:
    """JSON Lines of one record an image."""
    return "\n".join(json.dumps(record(i, [t for j, t in ROWS if i == j])) for i in IMAGES).encode()


def test_translations_of_the_captions_are_kept_out_too(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "zh": ["草丛中的黑狗。"], "zh_en": ["A black dog in the grass ."]}
    (tmp_path / "native.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert load_benchmark(str(tmp_path), "native.jsonl").texts == (row["zh"][0], row["zh_en"][0])


LAYOUTS: dict[str, tuple[str, bytes]] = {
    "Flickr30k": ("results_20130124.token", joined("{image}#{n}\t{text}")),
    "Flickr8k-CN": ("flickr8kcn_test.txt", joined("{image}#zhm#{n} {text}")),
    "COCO-CN": ("imageid.human-written-caption.txt", joined("{image}#{n}\t{text}").replace(b".jpg", b"")),
    "captions of a table": ("captions.txt", b"image,caption\n" + joined('{image},"{text}"')),
    "with bars": ("results.csv", b"image_name| comment_number| comment\n" + joined("{image}| {n}| {text}")),
    "no header": ("pairs.tsv", joined("{image}\t{text}")),
    "COCO": ("captions_val2014.json", coco()),
    "Karpathy": ("dataset_flickr30k.json", karpathy()),
    "mapping": ("captions.json", json.dumps({i: [t for j, t in ROWS if i == j] for i in IMAGES}).encode()),
    "AI-Challenger": ("ai.json", json.dumps([{"image_id": i, "caption": [t]} for i, t in ROWS]).encode()),
    "XM3600": ("captions.jsonl", by_image(lambda i, t: {"image/key": i[:-4], "zh": {"caption": t}, "fr": {}})),
    "CLIP_benchmark": ("test.zh.jsonl", by_image(lambda i, t: {"id": i[:-4], "img_path": i, "sentences": t})),
    "MUGE": ("MR_valid_queries.jsonl", by_image(lambda i, t: {"query_text": t[0], "item_ids": [i]})),
    "gzip": ("bilingual.jsonl.gz", gzip.compress(by_image(lambda i, t: {"image": i, "zh": t}))),
    "CRLF": ("lines.txt", joined("{image}#{n}\t{text}").replace(b"\n", b"\r\n")),
}


def build_with(folder: Path, benchmark: str, images: Sequence[str] = ()) -> dict[str, Any]:
    """Build a corpus of everything that `eval` reads at `benchmark`, each on a row of its own, and of one other row.

    `images` are other names of its images.
    """
    scored = read_benchmark(benchmark)
    images = images or scored.images
    texts = sorted({text for captions in scored.captions.values() for text in captions.texts})
    rows = [("The number is new.", text, "") if not text.isascii() else (text, "新的数字。", "") for text in texts]
    rows += [(f"Not {n} of these.", f"不是其中{n}个。", image) for n, image in enumerate(images)]
    rows.append(("A boat floats on the quiet lake.", "一只小船漂在平静的湖面上。", "elsewhere.jpg"))
    (folder / "own.tsv").write_text("\n".join(map("\t".join, rows)) + "\n", encoding="utf-8")
    source = {"name": "own", "format": "tsv", "files": ["own.tsv"], "image": 3}
    report = built(write_config(folder, [source], benchmarks=[benchmark], valid_per_domain=0))
    assert report["rows_kept"] == 1
    assert len(texts) + len(images) == report["rows_rejected"]
    return {reason: entry["rows"] for reason, entry in report["rejects"].items()} | {"texts": len(texts)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_benchmark_that_is_put_in_as_a_source_loses_every_row(layout: str, tmp_path: Path) -> None:
    name, content = LAYOUTS[layout]
    (tmp_path / name).write_bytes(content)
    rejects = build_with(tmp_path, str(tmp_path / name))
    texts = small.IMAGES if layout == "MUGE" else len(ROWS)
    assert rejects == {"benchmark_text": texts, "benchmark_image": small.IMAGES, "texts": texts}


@pytest.mark.parametrize("layout", ["chinese_clip", "csv", "jsonl", "hub"])
def test_a_benchmark_with_pictures_loses_every_row(layout: str, files: Files, tmp_path: Path) -> None:
    # the Hub's id of an image counts its rows, and its file name is what other publishers call it
    rejects = build_with(tmp_path, str(getattr(files, layout)), IMAGES if layout == "hub" else ())
    assert rejects["benchmark_text"] == rejects["texts"] >= len(ROWS)
    assert rejects["benchmark_image"] == small.IMAGES


def test_a_member_of_a_zip_and_a_list_of_image_ids(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("test.txt", "one.jpg#zhm#0 屋顶上坐着一只红猫。")
    benchmark = load_benchmark(str(tmp_path), "a.zip!test.txt")
    assert benchmark.texts == ("屋顶上坐着一只红猫。",)
    assert benchmark.image_ids == {"one"}
    (tmp_path / "ids.txt").write_text("COCO_val2014_000000000139\n\n000000000285.jpg\n1007129816\n000411001ff7dd4f\n")
    ids = load_benchmark(str(tmp_path), "ids.txt")
    assert not ids.texts
    assert ids.image_ids == {"coco:139", "coco:285", "1007129816", "000411001ff7dd4f"}
    assert image_id("val2014/COCO_val2014_000000000139.jpg") in ids.image_ids


def test_a_text_a_line_is_a_benchmark_of_texts_only(tmp_path: Path) -> None:
    (tmp_path / "xtd.txt").write_text("一只猫\n一辆车在路上，#1 号\n" + "别的\n" * 20, encoding="utf-8")
    assert load_benchmark(str(tmp_path), "xtd.txt").texts == ("一只猫", "一辆车在路上，#1 号", "别的")
    with pytest.raises(UserError, match=r"xtd\.txt:1: no image id"):
        read_benchmark(str(tmp_path / "xtd.txt"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x\t屋顶上\ny\t红猫\n", r"a\.txt:1: not understood, 'x\\t"),
        ("a.txt", "a.jpg#0\t屋顶上\n红猫\nb.jpg#0\t猫\n", r"a\.txt:2: no IMAGE#0<tab>caption .* but '红猫'"),
        ("a.tsv", "x\ty\n1\t2\n", r"a\.tsv:1: no column of captions in 'x\\ty'"),
        ("a.json", '{"title": "x", "rows": [{"y": 1}]}', r"a\.json: no captions in it"),
        ("a.json", "[" * 800 + "]" * 800, r"a\.json: (?:JSON nested too deeply|no captions)"),
        ("a.pdf", "x", r"a\.pdf: a file of an unknown kind"),
        ("a.parquet", "x", r"a\.parquet: not a readable Parquet file"),
    ],
)
def test_what_is_not_understood_is_an_error(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        list(read_benchmark_rows(str(tmp_path), name))
