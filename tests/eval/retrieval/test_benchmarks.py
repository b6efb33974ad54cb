"""The other benchmarks: their published layouts, and that each scores through the one path."""

import base64
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.cli import UserError
from eval import flickr30k_cn, nouns, translation
from eval.datasets.benchmark import BENCHMARKS, PublishedBenchmark, read_benchmark
from eval.retrieval import __main__ as retrieval_main
from eval.retrieval.command import run_benchmark
from eval.retrieval.result import RetrievalResult
from tests.distill.tiny_clip import write_shard
from tests.eval import files as small
from tests.eval.files import Files


def dump(path: Path, value: Any) -> Path:  # noqa: ANN401  any JSON
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def coco(path: Path, names: list[str], captions: list[tuple[int, str]]) -> Path:
    notes = [{"id": i, "image_id": 70 + image, "caption": text} for i, (image, text) in enumerate(captions)]
    images = [{"id": 70 + i, "file_name": name} for i, name in enumerate(names)]
    return dump(path, {"images": images, "annotations": notes})


def scored(published: PublishedBenchmark, *arguments: object) -> RetrievalResult:
    return run_benchmark(published, [str(argument) for argument in (*arguments, "--title", "A few pictures")])


def test_coco_json_with_english_from_another_file(clip: Path, student: Path, files: Files, tmp_path: Path) -> None:
    numbers = range(small.IMAGES)
    own = coco(
        tmp_path / "coco-cn_test.json",
        [f"val2014/{small.name(n)}" for n in numbers],
        [(n, text) for n in numbers for text in small.chinese(n)],
    )
    english = coco(
        tmp_path / "captions_val2014.json",
        ["other.jpg", *(small.name(n) for n in numbers)],
        [(0, "of no image"), *((n + 1, small.english(n)[0]) for n in numbers)],
    )
    shutil.copytree(files.csv.parent / "flickr30k-images", tmp_path / "images")
    towers = ("--student", student, "--clip", clip)
    result = scored(BENCHMARKS["coco-cn"], *towers, "--data", own, "--english", english)
    same = scored(BENCHMARKS["coco-cn"], *towers, "--data", files.jsonl)
    assert [row.scores.tolist() for row in result.rows] == [row.scores.tolist() for row in same.rows]


def test_traditional_captions_stand_beside_their_own(clip: Path, student: Path, files: Files) -> None:
    towers = ("--student", student, "--clip", clip)
    result = scored(BENCHMARKS["coco-cn"], *towers, "--data", files.jsonl, "--traditional", True)
    assert [(row.model, row.language) for row in result.rows if row.language[:2] == "zh"] == [
        ("student", "zh"), ("student", "zh_hant"), ("teacher", "zh"), ("teacher", "zh_hant"),
    ]  # fmt: skip
    own, other = (
        [each.caption for each in result.examples if (each.model, each.language) == ("student", language)]
        for language in ("zh", "zh_hant")
    )
    assert len(own) > 10
    assert [caption.translate(str.maketrans("张号只猫机", "張號隻貓機")) for caption in own] == other
    assert "student-zh_hant/teacher-en" in {each.name for each in result.ratios}
    with pytest.raises(UserError, match=r"--traditional: .* has no Chinese captions; leave it out"):
        scored(BENCHMARKS["flickr30k"], *towers, "--data", files.csv, "--traditional", True)


def test_the_published_coco_cn_file(real: Path) -> None:
    benchmark = read_benchmark(str(real / "benchmarks" / "coco-cn_test.json"))
    assert (len(benchmark.images), len(benchmark.captions["zh"].texts)) == (1000, BENCHMARKS["coco-cn"].captions)
    assert benchmark.images[0] == "train2014/COCO_train2014_000000573854.jpg"
    assert benchmark.captions["zh"].texts[0] == "机场跑道的喷气式飞机正准备起飞。"


def test_bad_coco_files(tmp_path: Path) -> None:
    cases: dict[str, tuple[Any, str]] = {
        "list": ([], "needs the keys images and annotations"),
        "lacks": ({"images": [{"id": 1}], "annotations": []}, "lacks 'file_name'"),
        "unknown": (
            {"images": [], "annotations": [{"id": 5, "image_id": 3, "caption": "猫"}]},
            "annotation 5: image 3 is not among images",
        ),
        "empty": (
            {"images": [{"id": 3, "file_name": "a"}], "annotations": [{"id": 5, "image_id": 3, "caption": " "}]},
            "annotation 5: an empty caption",
        ),
    }
    for name, (value, message) in cases.items():
        with pytest.raises(UserError, match=message):
            read_benchmark(str(dump(tmp_path / f"{name}.json", value)))
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(UserError, match="cut short"):
        read_benchmark(str(tmp_path / "cut.json"))


def test_xm3600_reads_all_captions_of_both_languages(tmp_path: Path) -> None:
    row = {
        "image/key": "000411001ff7dd4f",
        "image/locale": "cs",
        "zh": {"caption": ["一只猫", "猫在山上"], "caption/tokenized": ["x", "y"]},
        "en": {"caption": ["a cat"], "caption/tokenized": ["a cat"]},
        "fr": {"caption": ["un chat"]},
    }
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000411001ff7dd4f.jpg").write_bytes(b"jpeg")
    benchmark = read_benchmark(str(lines(tmp_path / "captions.jsonl", [row])))
    texts = {name: own.texts for name, own in benchmark.captions.items()}
    assert texts == {"zh": ("一只猫", "猫在山上"), "en": ("a cat",)}
    assert small.read_image(benchmark, benchmark.images[0]) == b"jpeg"


def test_muge_as_it_is_published(clip: Path, student: Path, tmp_path: Path) -> None:
    """Shop queries with several right pictures each, and pictures that no query asks for."""
    rows = [{"query_id": n, "query_text": small.KINDS[n % 6], "item_ids": [n, n + 1]} for n in range(5)]
    lines(tmp_path / "valid_queries.jsonl", rows)
    pictures = [f"{n}\t{base64.b64encode(small.picture(n)).decode()}\n" for n in range(12)]
    (tmp_path / "valid_imgs.tsv").write_text("".join(pictures))
    result = scored(BENCHMARKS["muge"], "--student", student, "--clip", clip, "--data", tmp_path)
    assert (result.rows[0].captions, result.rows[0].images) == (5, 6)
    assert result.settings["images"] == 12


def test_plain_captions_of_an_english_benchmark(clip: Path, student: Path, files: Files, tmp_path: Path) -> None:
    rows = [{"id": "x", "img_path": small.name(n), "sentences": small.english(n)} for n in range(small.IMAGES)]
    data = lines(tmp_path / "flickr30k.jsonl", rows)
    images = files.csv.parent / "flickr30k-images"
    result = scored(BENCHMARKS["flickr30k"], "--student", student, "--clip", clip, "--data", data, "--images", images)
    assert [(row.model, row.language) for row in result.rows] == [("student", "en"), ("teacher", "en")]
    assert [ratio.name for ratio in result.ratios] == ["student-en/teacher-en"]
    assert BENCHMARKS["xm3600"].captions is None


def test_nouns_there_and_back(clip: Path, teacher: Path, student: Path, tmp_path: Path) -> None:
    (tmp_path / "zh.txt").write_text("\n".join(small.KINDS) + "\n", encoding="utf-8")
    dump(tmp_path / "en.json", {"imagenet1k": list(small.ENGLISH)})
    labels = ("--data", tmp_path / "zh.txt", "--english", tmp_path / "en.json")
    towers = ("--student", student, "--clip", teacher)
    rows = {(row.model, row.language): row for row in nouns.run_nouns([str(each) for each in (*towers, *labels)]).rows}
    assert rows["teacher", "en"].scores.tolist() == [100.0] * 7
    assert rows["student", "zh"].scores[6] < 100
    same = nouns.run_nouns([str(each) for each in ("--student", teacher, "--clip", teacher, *labels)]).rows
    assert same[1].scores.tolist() == [100.0] * 7


def test_nouns_as_labels_of_pictures_is_zero_shot_accuracy(clip: Path, student: Path, tmp_path: Path) -> None:
    (tmp_path / "zh.txt").write_text("\n".join(small.KINDS), encoding="utf-8")
    (tmp_path / "en.txt").write_text("\n".join(small.ENGLISH), encoding="utf-8")
    for number in range(15):
        folder = tmp_path / "val" / f"n{number % 6:08}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.JPEG").write_bytes(small.picture(number))
    (tmp_path / "val" / "README.txt").write_text("not a class")
    labels = ("--data", tmp_path / "zh.txt", "--english", tmp_path / "en.txt", "--images", tmp_path / "val")
    towers = ("--student", student, "--clip", clip)
    row = nouns.run_nouns([str(each) for each in (*towers, *labels)]).rows[0]
    assert (row.captions, row.images) == (6, 15)
    assert row.scores[5] == 100  # six classes: the right one is among the first ten
    for picture in (tmp_path / "val" / "n00000003").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match="no pictures in n00000003/; a class cannot go without"):
        nouns.run_nouns([str(each) for each in (*towers, *labels)])
    (tmp_path / "val" / "n00000003").rmdir()
    with pytest.raises(UserError, match="5 folders of classes for 6 names"):
        nouns.run_nouns([str(each) for each in (*towers, *labels)])


def test_bad_label_files(teacher: Path, student: Path, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("猫\n狗\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text("cat\n", encoding="utf-8")
    dump(tmp_path / "dict.json", {"a": 1})
    towers = ("--student", str(student), "--clip", str(teacher), "--data", str(tmp_path / "two.txt"))
    for arguments, message in (
        ((), "--english: missing"),
        (("--english", "one.txt"), r"two\.txt: 2 names, .*one\.txt: 1; both must name the same"),
        (("--english", "dict.json"), "needs a list of class names"),
        (("--english", "absent.txt"), "no such file; give a file with one class name a line"),
    ):
        named = [str(tmp_path / each) if "." in each else each for each in arguments]
        with pytest.raises(UserError, match=message):
            nouns.run_nouns([*towers, *named])


def test_translate_then_teacher_adds_its_row(translator: Path, clip: Path, student: Path, files: Files) -> None:
    arguments = ("--student", student, "--clip", clip, "--data", files.jsonl)
    result = scored(PublishedBenchmark("eval.x", "X", "zh", 12, 24), *arguments, "--translator", translator)
    last = result.rows[-1]
    assert (last.model, last.language, last.captions) == ("mt+teacher", "zh", 24)
    assert "mt+teacher-zh/teacher-en" in [ratio.name for ratio in result.ratios]


@pytest.mark.parametrize("command", [flickr30k_cn.main, nouns.run_nouns, translation.run_translation])
def test_every_benchmark_takes_a_translator(
    command: Callable[[], object],
    student: Path,
    clip: Path,
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen by its mistake, which comes before any picture is looked at."""
    pairs = [(en, zh) for en, zh in zip(small.ENGLISH, small.KINDS, strict=True)]
    write_shard(tmp_path / "corpus" / "valid" / "0.parquet", pairs, ["words"] * len(pairs))
    for language, texts in (("zh", small.KINDS), ("en", small.ENGLISH)):
        (tmp_path / f"{language}.txt").write_text("\n".join(texts), encoding="utf-8")
    data_of: dict[Callable[[], object], list[str]] = {
        nouns.run_nouns: ["--data", str(tmp_path / "zh.txt"), "--english", str(tmp_path / "en.txt")],
        translation.run_translation: ["--data", str(tmp_path / "corpus")],
    }
    data = data_of.get(command, ["--data", str(files.jsonl)])
    words = ["--student", str(student), "--clip", str(clip), "--translator", str(tmp_path / "absent"), *data]
    words += ["--title", "A few pictures"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    with pytest.raises(UserError, match=r"--translator .*/absent: no such folder"):
        command()
    words[1] = str(tmp_path / "nobody")
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    with pytest.raises(UserError, match=r"--student .*/nobody: no such folder"):  # known before hours of translation
        command()


def test_nothing_to_translate(translator: Path, clip: Path, student: Path, files: Files, tmp_path: Path) -> None:
    rows = [{"id": "x", "img_path": small.name(n), "sentences": small.english(n)} for n in range(small.IMAGES)]
    data = lines(tmp_path / "flickr30k.jsonl", rows)
    arguments = ("--student", student, "--clip", clip, "--data", data, "--translator", translator)
    with pytest.raises(UserError, match=r"--translator: .*has no Chinese captions to translate"):
        scored(BENCHMARKS["flickr30k"], *arguments)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_a_name_of_one_command(
    name: str, student: Path, clip: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = BENCHMARKS[name]
    words = [name, "--student", str(student), "--clip", str(clip), "--data", str(files.jsonl)]
    monkeypatch.setattr(sys, "argv", ["eval.retrieval", *words])
    with pytest.raises(UserError, match=rf"not the {published.images} images .*of {published.title}'s test set"):
        retrieval_main.main()
    monkeypatch.setattr(sys, "argv", ["eval.retrieval", *words, "--title", published.title])
    with pytest.raises(UserError, match="name another set than a published one"):
        retrieval_main.main()


@pytest.mark.parametrize("words", [[], ["flickr8k"]])
def test_an_unknown_benchmark_is_one_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["eval.retrieval", *words])
    with pytest.raises(UserError, match="is not one of flickr30k-cn, flickr30k, coco-cn, xm3600, muge"):
        retrieval_main.main()


def test_help_names_the_benchmarks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["eval.retrieval", "--help"])
    retrieval_main.main()
    assert "BENCHMARK is one of flickr30k-cn, flickr30k, coco-cn, xm3600, muge" in capsys.readouterr().out
