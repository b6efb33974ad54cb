"""Mojibake, banned words, endings and benchmarks by name, by hand and through whole builds."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from data.clean.benchmarks import benchmark_paths
from data.clean.characters import TextColumn, decode, encode
from data.clean.heuristics import ending_mismatch
from data.clean.normalise import has_mojibake, normalise_text
from data.clean.scores import contains_banned, load_banned_words
from data.cli import UserError
from data.sources.io import TEXT
from tests.data.corpora import PAIRS, built, tsv_config


def text(*texts: str) -> TextColumn:
    return decode(pa.array(texts, TEXT))


def plain(value: str) -> str:
    return str(encode(normalise_text(text(value), False, False, "keep"))[0].as_py())


@pytest.mark.parametrize("meant", ["naïve façade", "语言是桥", "It costs £5 – or not"])
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_mojibake_is_put_right(meant: str, wrong: str) -> None:
    read = meant.encode().decode(wrong, "replace")
    if "\ufffd" not in read:
        assert has_mojibake(text(read)).all()
        assert plain(read) == plain(meant)


@pytest.mark.parametrize("sound", ["Él está aquí.", "Ärger über Öl", "São Paulo, à la carte", "Crème brûlée"])
def test_sound_text_is_not_touched_by_the_repair(sound: str) -> None:
    assert plain(sound) == sound


def test_how_the_sides_end() -> None:
    en = text("Is it?", "It is.", "It is", "It is!", "", '"Who?"', "No.")
    zh = text("是吗？", "是吗？", "是。", "是", "", "“谁？”", "不（对）。")
    assert ending_mismatch(en, zh).tolist() == [0, 1, 0.5, 0.5, 0, 0, 0]


def test_banned_words_are_whole_in_english_and_anywhere_in_chinese(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# ours\nass\nBad Thing\n裸体\n", encoding="utf-8")
    words = load_banned_words(str(tmp_path), "words.txt")
    en = text("A class of glass", "an ASS stands", "fine", "such a bad thing!")
    assert contains_banned(en, text("好", "好", "全裸体的", "好"), words).tolist() == [0, 1, 1, 1]


def test_builds_ban_words_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("helicopter\n桥\n", encoding="utf-8")
    (tmp_path / "none.txt").write_text("# nothing\n", encoding="utf-8")
    told = built(tsv_config(tmp_path, PAIRS, banned_words="words.txt", valid_per_domain=0))
    assert {reason: entry["rows"] for reason, entry in told["rejects"].items()} == {"banned_word": 2}
    assert built(tsv_config(tmp_path, PAIRS, valid_per_domain=0), overwrite=True)["rows_rejected"] == 0
    with pytest.raises(UserError, match=r"none\.txt: no word in it"):
        load_banned_words(str(tmp_path), "none.txt")


def test_endings_are_judged_only_when_asked(tmp_path: Path) -> None:
    rows = [*PAIRS, ("Is that the old harbour?", "那就是旧港口。"), ("Some words without a stop", "没有句号的几个字。")]
    assert built(tsv_config(tmp_path, rows, valid_per_domain=0))["rows_rejected"] == 0
    told = built(tsv_config(tmp_path, rows, valid_per_domain=0, limits={"max_ending": 0.5}), overwrite=True)
    assert [entry["worst"][0]["place"] for entry in told["rejects"].values()] == ["pairs.tsv:11"]


def test_benchmarks_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    (folder / "MUGE").mkdir(parents=True)
    names = [
        "flickr30k_cn_test.csv",
        "flickr30k.test.en.jsonl",
        "coco-cn_test.json",
        "MUGE/MR_test_queries.jsonl",
        "x.png",
    ]
    for name in [*names, "xflickrco.test.zh.jsonl", "crossmodal3600.jsonl"]:
        (folder / name).write_text("", encoding="utf-8")

    def found(*written: str) -> list[str]:
        paths = benchmark_paths(str(tmp_path), "benchmarks", written)
        return [str(Path(path).relative_to(folder)) if Path(path).is_absolute() else path for path in paths]

    assert found("flickr30k-cn") == ["flickr30k_cn_test.csv"]
    assert found("flickr30k") == ["flickr30k.test.en.jsonl"]
    assert found("coco-cn", "muge") == ["coco-cn_test.json", "MUGE/MR_test_queries.jsonl"]
    assert found("xm3600", "xflickrco") == ["crossmodal3600.jsonl", "xflickrco.test.zh.jsonl"]
    assert found("own.csv", "hub://a/b") == ["own.csv", "hub://a/b"]
    with pytest.raises(UserError, match=r"coco: no \.json"):
        found("coco")
    with pytest.raises(UserError, match="say in `benchmark_folder`"):
        benchmark_paths(str(tmp_path), "", ("muge",))


def test_a_build_keeps_named_benchmarks_out(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    lines = [{"image/key": "k", "zh": {"caption": [PAIRS[0][1]]}, "en": {"caption": ["nothing"]}}]
    (tmp_path / "held" / "xm3600.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "held" / "muge_queries.jsonl").write_text(json.dumps({"query_text": PAIRS[1][1]}), encoding="utf-8")
    told = built(
        tsv_config(tmp_path, PAIRS, benchmarks=["xm3600", "muge"], benchmark_folder="held", valid_per_domain=0)
    )
    assert {reason: entry["rows"] for reason, entry in told["rejects"].items()} == {"benchmark_text": 2}
    assert [b["texts"] for b in told["benchmarks"]] == [2, 1]


@pytest.mark.parametrize("local", [True, False])
def test_a_build_keeps_a_benchmark_of_the_hub_out(local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the set's folder, of two splits; by its id, `datasets` reads the same folder."""
    hub = tmp_path / "hub"
    hub.mkdir()
    features = datasets.Features(
        {
            "caption": datasets.List(datasets.Value("string")),
            "filename": datasets.Value("string"),
            "url": datasets.Value("string"),
            "image": datasets.Image(),
        }
    )
    unread = {"bytes": b"no picture", "path": "7.jpg"}
    for split, texts in (("test", [PAIRS[0][0], "一句"]), ("validation", [PAIRS[1][1], PAIRS[2][0]])):
        row = {"caption": texts, "filename": f"{split}.jpg", "url": PAIRS[4][0], "image": unread}
        datasets.Dataset.from_list([row], features=features).to_parquet(hub / f"{split}.parquet")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    load = datasets.load_dataset
    monkeypatch.setattr("datasets.load_dataset", lambda name: load(str(hub) if name == "own/set" else name))
    name = "hub" if local else "own/set"
    report = built(tsv_config(tmp_path, PAIRS, benchmarks=[f"hub://{name}"], valid_per_domain=0))
    assert {reason: entry["rows"] for reason, entry in report["rejects"].items()} == {"benchmark_text": 3}
    held = report["benchmarks"]
    assert [(each["texts"], each["images"]) for each in held] == ([(2, 1), (2, 1)] if local else [(4, 2)])


def test_a_benchmark_that_the_hub_does_not_give_stops_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="benchmarks: hub://yuqiao/absent: cannot be opened"):
        built(tsv_config(tmp_path, PAIRS, benchmarks=["hub://yuqiao/absent"]))
    assert not (tmp_path / "corpus").exists()
