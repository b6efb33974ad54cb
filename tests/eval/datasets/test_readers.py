import json
from pathlib import Path

import numpy as np
import pytest

from data.cli import UserError
from eval.datasets.benchmark import RetrievalBenchmark, read_benchmark
from eval.datasets.hub import is_hub_id
from tests.eval import files as small
from tests.eval.files import Files


def meaning(benchmark: RetrievalBenchmark, language: str) -> list[tuple[str, str]]:
    captions = benchmark.captions[language]
    return [(captions.texts[text], benchmark.images[image].removesuffix(".jpg")) for text, image in captions.pairs]


EXPECTED = [(text, small.name(n).removesuffix(".jpg")) for n in range(small.IMAGES) for text in small.chinese(n)]


@pytest.mark.parametrize("layout", ["chinese_clip", "csv", "jsonl"])
def test_every_layout_gives_the_same_captions_and_pictures(layout: str, files: Files) -> None:
    benchmark = read_benchmark(str(getattr(files, layout)))
    assert meaning(benchmark, "zh") == EXPECTED
    assert [small.read_image(benchmark, image) for image in benchmark.images] == [
        small.picture(n) for n in range(small.IMAGES)
    ]


def test_hub_layout_from_a_local_copy(files: Files) -> None:
    benchmark = read_benchmark(str(files.hub))
    assert [text for text, _ in meaning(benchmark, "zh")] == [text for text, _ in EXPECTED]
    assert [text for text, _ in meaning(benchmark, "en")] == [small.english(n)[0] for n in range(small.IMAGES)]
    assert small.read_image(benchmark, benchmark.images[5]) == small.picture(5)


def test_a_hub_data_set_with_its_true_split_in_a_column(tmp_path: Path) -> None:
    import datasets

    rows = {"caption_zh": ["训练", "测试", "测试二"], "split": ["train", "test", "test"], "filename": ["a", "b", "c"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "test.parquet")
    benchmark = read_benchmark(str(tmp_path))
    assert meaning(benchmark, "zh") == [("测试", "b"), ("测试二", "c")]
    with pytest.raises(UserError, match="no column of pictures"):
        small.read_image(benchmark, "b")


def test_a_hub_data_set_whose_captions_are_none(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": [1, 2]}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(UserError, match="row 0: text must be a string or a list of strings"):
        read_benchmark(str(tmp_path))


def test_bilingual_lines_keep_their_languages_apart(files: Files) -> None:
    benchmark = read_benchmark(str(files.jsonl))
    assert [text for text, _ in meaning(benchmark, "en")] == [small.english(n)[0] for n in range(small.IMAGES)]
    assert benchmark.captions["zh"].pairs.tolist() == [[2 * n + k, n] for n in range(small.IMAGES) for k in (0, 1)]


def test_order_of_the_pictures_file_is_the_order_of_the_gallery(tmp_path: Path) -> None:
    """It decides ties, and a picture that no caption names is in the gallery all the same."""
    (tmp_path / "test_texts.jsonl").write_text('{"text_id": 1, "text": "猫", "image_ids": [3, 1]}\n')
    (tmp_path / "test_imgs.tsv").write_text("1\tAA==\n2\tAA==\n3\t-_8=\n")
    benchmark = read_benchmark(str(tmp_path))
    assert benchmark.images == ("1", "2", "3")
    assert benchmark.captions["zh"].pairs.tolist() == [[0, 2], [0, 0]]
    assert small.read_image(benchmark, "3") == b"\xfb\xff"  # the URL-safe alphabet


def test_published_files_of_other_layouts(real: Path) -> None:
    table = read_benchmark(str(real / "benchmarks" / "flickr30k_cn_test.csv"))
    assert (len(table.images), len(table.captions["zh"].texts)) == (1000, 5000)
    english = read_benchmark(str(real / "benchmarks" / "flickr30k.test.en.jsonl"), language="en")
    assert (len(english.images), len(english.captions["en"].texts)) == (1000, 5000)
    dev = read_benchmark(str(real / "dev" / "captions.jsonl"))
    assert {name: len(captions.texts) for name, captions in dev.captions.items()} == {
        "zh": 823, "en": 823, "en_all": 3820,
    }  # fmt: skip
    assert len(small.read_image(dev, dev.images[0])) > 1000


BAD = {
    "empty.jsonl": (b"", "no captions; the file is empty"),
    "cut.jsonl": ('{"image": "a", "zh": ["猫'.encode(), r"cut\.jsonl:1: not JSON .*cut short"),
    "list.jsonl": (b"[1]\n", r"list\.jsonl:1: a JSON list where an object"),
    "noid.jsonl": ('{"zh": ["猫"]}\n'.encode(), r"noid\.jsonl:1: no image id"),
    "nocaption.jsonl": (b'{"title": "a", "tags": "x"}\n', r"nocaption\.jsonl:1: no captions; .*title, tags"),
    "blank.jsonl": (b'{"image": "a", "zh": [" "]}\n', r"blank\.jsonl:1: an empty caption"),
    "number.jsonl": (b'{"image": "a", "zh": 3}\n', r"number\.jsonl:1: zh must be a string or a list"),
    "latin.jsonl": ('{"image": "a", "zh": "é"}\n'.encode("latin-1"), r"latin\.jsonl:1: not valid UTF-8 at byte"),
    "wrong.csv": ("file,caption\na,猫\n".encode(), r"wrong\.csv:2: no image id"),
    "short.csv": (b"image,caption\na.jpg\n", r"short\.csv:2: the row lacks its image or its caption"),
    "a.7z": (b"x", "a file of an unknown kind"),
    "x_texts.jsonl": ('{"text": "猫"}\n'.encode(), r"x_texts\.jsonl:1: no image id"),
    "deep.jsonl": (b"[" * 99_999 + b"\n", r"deep\.jsonl:1: not JSON .*recursion"),
    "digits.jsonl": (b'{"image": ' + b"9" * 9_999 + b"}\n", r"digits\.jsonl:1: not JSON .*digits"),
    "half.jsonl": (b'{"image": "a", "zh": "\\ud800"}\n', "a caption is no text, it holds half a character"),
    "null.jsonl": (b'{"image/key": "a", "zh": null}\n', r"null\.jsonl:1: zh must be a string or a list"),
    "deep.json": (b"[" * 99_999, r"deep\.json: not JSON .*recursion"),
    "quote.csv": (b'image,"caption\na,b\n', r"quote\.csv:.* not CSV"),
    "upper.csv": ("image,caption\na,一_CD 猫_NN\n".encode(), "part-of-speech tags"),
    "tagged.csv": (
        "image,caption\na,一个/mq 男人/n 在/p 跑步/v\nb,两只/mq 狗/n 奔跑/v\n".encode(),
        "part-of-speech tags .*CLIP_benchmark",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_their_line(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_benchmark(str(tmp_path / name))


def test_captions_of_unknown_pictures_and_broken_pictures_files(tmp_path: Path) -> None:
    (tmp_path / "test_texts.jsonl").write_text('{"text_id": 1, "text": "猫", "image_ids": [9]}\n')
    (tmp_path / "test_imgs.tsv").write_text("1\tAA==\n")
    with pytest.raises(UserError, match=r"of image 9, which is not in .*test_imgs\.tsv"):
        read_benchmark(str(tmp_path))
    (tmp_path / "test_imgs.tsv").write_text("9\tAA=\n")
    with pytest.raises(UserError, match="image 9 is not base64"):
        small.read_image(read_benchmark(str(tmp_path)), "9")
    (tmp_path / "test_imgs.tsv").write_text("9 AA==\n")
    with pytest.raises(UserError, match=r"test_imgs\.tsv:1: no tab"):
        read_benchmark(str(tmp_path))
    (tmp_path / "test_imgs.tsv").unlink()
    with pytest.raises(UserError, match=r"no file .*test_imgs\.tsv"):
        small.read_image(read_benchmark(str(tmp_path)), "9")


def test_paths_that_hold_no_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such file or folder; give a folder with test_texts"):
        read_benchmark(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="a folder with nothing of the kind"):
        read_benchmark(str(tmp_path))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image,caption\n")
    with pytest.raises(UserError, match=r"a folder with a\.csv, b\.csv; name one file"):
        read_benchmark(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="yuqiao/absent: cannot be read as a data set of the Hub"):
        read_benchmark("yuqiao/absent")


def test_what_looks_like_a_hub_id() -> None:
    assert is_hub_id("lmms-lab/flickr30k")
    assert not any(map(is_hub_id, ("data/captions.jsonl", "/data/x", "./x", "a/b/c", "x", "../a")))


def test_missing_pictures_are_named(files: Files, tmp_path: Path) -> None:
    copy = tmp_path / "captions.csv"
    copy.write_bytes(files.csv.read_bytes())
    with pytest.raises(UserError, match=r"image 1000\.jpg: no such file in .*--images"):
        small.read_image(read_benchmark(str(copy)), "1000.jpg")
    assert small.read_image(
        read_benchmark(str(copy), files.csv.parent / "flickr30k-images"), "1000.jpg"
    ) == small.picture(0)
    with pytest.raises(UserError, match=r"--images .*: no such folder"):
        read_benchmark(str(copy), tmp_path / "absent")


def test_an_english_file_joins_by_image(files: Files, tmp_path: Path) -> None:
    from eval.retrieval.command import with_english

    lines = [{"id": "9", "img_path": "9.jpg", "sentences": ["of no image here"]}]
    lines += [{"id": "x", "img_path": small.name(n), "sentences": [f"a {n}", f"b {n}"]} for n in (3, 1)]
    path = tmp_path / "en.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    joined = with_english(read_benchmark(str(files.chinese_clip)), read_benchmark(str(path), language="en"), str(path))
    assert joined.captions["en"].texts == ("a 3", "b 3", "a 1", "b 1")
    assert joined.captions["en"].pairs.tolist() == np.array([[0, 3], [1, 3], [2, 1], [3, 1]]).tolist()
    path.write_text(json.dumps(lines[0]))
    with pytest.raises(UserError, match=r"none of its images is in --data; its first is '9\.jpg'"):
        with_english(read_benchmark(str(files.chinese_clip)), read_benchmark(str(path), language="en"), str(path))
