"""Whole builds: what comes out, what is counted, that nothing is lost, that a kill costs nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.build.__main__ import build
from data.build.config import load_corpus_config
from data.cli import UserError
from tests.data.corpora import PAIRS, built, rows, tsv_config, write_config, write_tsv

REPOSITORY = Path(__file__).parents[3]
DIRTY = [
    ("A dog runs on the grass!", "一只狗在草地上奔跑"),  # a duplicate once folded
    ("one column",),
    ("", "只有中文"),
    ("Only English", ""),
    ("Same on both sides", "Same on both sides"),
    ("No Chinese at all", "pas de chinois ici"),
    ("Broken \ufffd text", "坏字"),
]


def test_rows_in_are_rows_kept_plus_rows_rejected_with_a_reason(tmp_path: Path) -> None:
    told = built(tsv_config(tmp_path, PAIRS + DIRTY, valid_per_domain=1))
    assert (told["rows_in"], told["rows_kept"], told["rows_rejected"]) == (17, 10, 7)
    assert (told["train_rows"], told["valid_rows"]) == (9, 1)
    assert {reason: entry["rows"] for reason, entry in told["rejects"].items()} == {
        "columns": 1, "en_empty": 1, "zh_empty": 1, "identical": 1, "zh_script": 1, "bad_utf8": 1, "duplicate": 1,
    }  # fmt: skip
    assert told["rejects"]["columns"]["worst"][0]["place"] == "pairs.tsv:12"
    assert told["sources"][0]["files"][0]["sha256"]
    found = rows(tmp_path / "corpus") + rows(tmp_path / "corpus", "valid")
    assert {(r["en"], r["zh"]) for r in found} == set(PAIRS)
    assert {r["id"] for r in found} == {f"pairs:{n}" for n in range(1, 11)}
    assert set(found[0]) == {"en", "zh", "domain", "source", "license", "id", "image"}


def test_datasets_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    built(tsv_config(tmp_path, PAIRS))
    files = {split: str(tmp_path / "corpus" / split / "*.parquet") for split in ("train", "valid")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 9
    assert loaded["valid"].num_rows == 1


def test_benchmark_texts_and_images_are_kept_out(tmp_path: Path) -> None:
    for name, lines in (("c.en", [p[0] for p in PAIRS]), ("c.zh", [p[1] for p in PAIRS])):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    images = [f"{n}.jpg" for n in range(9)] + ["000000000139.jpg"]
    (tmp_path / "c.img").write_text("\n".join(images), encoding="utf-8")
    test = [
        {"id": "1", "img_path": "7.jpg", "sentences": ["nothing of this"]},
        {"image": "x", "zh": ["两个男人在骑自行车"], "en": ["A GIRL in a red dress smiles"]},
        {"file_name": "COCO_val2014_000000000139.jpg", "caption": "也没有"},
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(t) for t in test), encoding="utf-8")
    source = {"name": "c", "format": "moses", "en": ["c.en"], "zh": ["c.zh"], "image": ["c.img"], "domain": "caption"}
    told = built(write_config(tmp_path, [source], benchmarks=["b.jsonl"], valid_per_domain=0))
    assert {reason: entry["rows"] for reason, entry in told["rejects"].items()} == {
        "benchmark_text": 2,
        "benchmark_image": 2,
    }
    kept = rows(tmp_path / "corpus")
    assert [r["image"] for r in kept] == ["0.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg", "8.jpg"]


def test_same_input_gives_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    many = [(f"{a} number {n} and {n * 7} of them.", f"{b}第{n}号共{n * 7}个。") for n in range(700) for a, b in PAIRS]
    config = tsv_config(tmp_path, many)
    files = []
    for out in ("one", "two"):
        build(config, tmp_path / out)
        files.append(
            [(p.relative_to(tmp_path / out), p.read_bytes()) for p in sorted((tmp_path / out).rglob("part-*"))]
        )
    assert files[0] == files[1]
    assert len(rows(tmp_path / "one", "valid")) == 200


def test_shards_are_cut_at_the_limit(tmp_path: Path) -> None:
    built(tsv_config(tmp_path, PAIRS, rows_per_shard=4, valid_per_domain=0))
    import pyarrow.parquet as pq

    parts = sorted((tmp_path / "corpus" / "train").glob("*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [4, 4, 2]
    assert pq.read_metadata(parts[0]).row_group(0).column(0).compression == "ZSTD"


def test_limits_can_differ_by_domain(tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", PAIRS)
    write_tsv(tmp_path / "b.tsv", [("cat", "猫"), ("dog", "狗")])
    sources = [
        {"name": "a", "format": "tsv", "files": ["a.tsv"]},
        {"name": "b", "format": "tsv", "files": ["b.tsv"], "domain": "dictionary"},
    ]
    config = write_config(
        tmp_path, sources, limits={"min_en_chars": 5}, limits_by_domain={"dictionary": {"min_en_chars": 2}}
    )
    assert [s["rows_kept"] for s in built(config)["sources"]] == [10, 2]


def test_a_domain_has_limits_of_its_own_that_a_config_overrides(tmp_path: Path) -> None:
    domains = ("general", "dictionary", "poetry")
    sources: list[dict[str, Any]] = [{"name": d, "domain": d, "format": "tsv", "files": ["a"]} for d in domains]

    def limits(**keys: Any) -> list[float]:  # noqa: ANN401
        found = load_corpus_config(write_config(tmp_path, sources, **keys)).limits
        assert found["dictionary"].max_same_en == 40
        return [found[domain].near_duplicate for domain in domains]

    assert limits() == [0.85, 2.0, 0.92]
    assert limits(limits={"max_run": 5}) == [0.85, 2.0, 0.92]
    assert limits(limits={"near_duplicate": 0.7}) == [0.7, 0.7, 0.7]
    by_domain = {"poetry": {"near_duplicate": 0.8}}
    assert limits(limits={"near_duplicate": 0.7}, limits_by_domain=by_domain) == [0.7, 0.7, 0.8]


def test_an_old_corpus_is_kept_refused_or_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tsv_config(tmp_path, PAIRS, valid_per_domain=0)
    built(config)
    stamp = (tmp_path / "corpus" / "report.json").stat().st_mtime_ns
    built(config)
    assert "already built" in capsys.readouterr().out
    assert (tmp_path / "corpus" / "report.json").stat().st_mtime_ns == stamp
    tsv_config(tmp_path, PAIRS, valid_per_domain=0, limits={"min_en_chars": 28})
    with pytest.raises(UserError, match=r"another config.*--overwrite"):
        built(config)
    assert built(config, overwrite=True)["rows_kept"] == 8
    assert not (tmp_path / "corpus.partial").exists()
    assert not (tmp_path / ".corpus.old").exists()


def test_thresholds_are_chosen_again_without_reading_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tsv_config(tmp_path, PAIRS, valid_per_domain=0)
    built(config)
    tsv_config(tmp_path, PAIRS, valid_per_domain=0, limits={"min_en_chars": 28})
    os.utime(tmp_path / "pairs.tsv", ns=(1, 1))
    _restamp(tmp_path)
    monkeypatch.setattr("data.build.cache.scored_batches", lambda *_: pytest.fail("read again"))
    with pytest.raises(pytest.fail.Exception, match="read again"):  # the file changed: it must be read
        built(config, overwrite=True)


def _restamp(folder: Path) -> None:
    (folder / "corpus.yaml").touch()


def test_unchanged_sources_are_reused_by_a_new_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tsv_config(tmp_path, PAIRS, valid_per_domain=0)
    built(config)
    write_config(tmp_path, [{"name": "pairs", "format": "tsv", "files": ["pairs.tsv"]}],
                 valid_per_domain=0, limits={"min_en_chars": 28})  # fmt: skip
    monkeypatch.setattr("data.build.cache.scored_batches", lambda *_: pytest.fail("read again"))
    assert built(config, overwrite=True)["rows_kept"] == 8


def test_a_killed_build_goes_on_with_what_was_finished(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tsv(tmp_path / f"{name}.tsv", [(f"{en} {name}", f"{zh}{name}") for en, zh in PAIRS])
    config = write_config(tmp_path, [{"name": n, "format": "tsv", "files": [f"{n}.tsv"]} for n in ("a", "b")])
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
import data.build.__main__ as b
inner = b.score_source
def once(source, *rest):
    if source.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(source, *rest)
b.score_source = once
b.build(Path({str(config)!r}), Path({str(tmp_path / "corpus")!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -9
    assert not (tmp_path / "corpus").exists()
    finished = tmp_path / "corpus.partial" / "scored" / "a" / "rows.parquet"
    stamp = finished.stat().st_mtime_ns
    told = built(config)
    assert (tmp_path / "corpus" / "scored" / "a" / "rows.parquet").stat().st_mtime_ns == stamp
    assert [s["rows_in"] for s in told["sources"]] == [10, 10]


@pytest.mark.parametrize("state", ["old only", "old and new"])
def test_a_swap_killed_between_its_renames_is_mended(tmp_path: Path, state: str) -> None:
    config = tsv_config(tmp_path, PAIRS)
    built(config)
    corpus, old = tmp_path / "corpus", tmp_path / ".corpus.old"
    if state == "old only":
        corpus.rename(old)
    else:
        old.mkdir()
    assert built(config)["rows_kept"] == 10
    assert corpus.exists()
    assert not old.exists()


def test_a_second_build_in_the_same_place_is_refused(tmp_path: Path) -> None:
    import fcntl

    config = tsv_config(tmp_path, PAIRS)
    with (tmp_path / ".corpus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another build is writing"):
            built(config)


def test_image_column_and_ids_of_many_files(tmp_path: Path) -> None:
    write_tsv(tmp_path / "x.tsv.gz", [("7.jpg", *PAIRS[0])])
    write_tsv(tmp_path / "y.tsv", [("8.jpg", *PAIRS[1])])
    source = {"name": "s", "format": "tsv", "files": ["x.tsv.gz", "y.tsv"], "en": 2, "zh": 3, "image": 1}
    built(write_config(tmp_path, [source]))
    assert [(r["id"], r["image"]) for r in rows(tmp_path / "corpus")] == [("x:1", "7.jpg"), ("y:1", "8.jpg")]


def test_length_ratio_is_fitted_to_the_domain(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    normal = [("word " * n + f"x{k}", "字" * int(n * 1.5) + str(k)) for k, n in enumerate(draw.integers(4, 30, 300))]
    odd = ("short", "这是一个非常长的句子" * 9)
    told = built(
        tsv_config(tmp_path, [*normal, odd], limits={"max_period": 2.0, "max_run": 999, "near_duplicate": 2.0})
    )
    worst: list[dict[str, Any]] = told["rejects"]["length_ratio"]["worst"]
    assert worst[0]["place"] == "pairs.tsv:301"
    assert told["rejects"]["length_ratio"]["rows"] <= 4


def test_repeats_and_null_words_teach_no_length_ratio(tmp_path: Path) -> None:
    """Of 1,110 rows 960 are a stock phrase of an odd ratio or an empty cell; the 150 good ones stay."""
    draw = np.random.default_rng(0)
    good = [("word " * n + f"x{k}", "字" * int(n * 1.5) + str(k)) for k, n in enumerate(draw.integers(4, 30, 150))]
    odd = [("Yes.", "是的，我完全同意你刚才所说的每一句话。")] * 480
    null = [(word, f"第{n}句话说得不短也不长。") for n in range(160) for word in ("None", "NaN", "<unk>")]
    limits = {"max_period": 2.0, "max_run": 999, "near_duplicate": 2.0, "max_same_zh": 9}
    report = built(tsv_config(tmp_path, odd + null + good, limits=limits, valid_per_domain=0))
    assert {reason: entry["rows"] for reason, entry in report["rejects"].items()} == {"null": 480, "length_ratio": 480}
    assert report["rows_kept"] == 150


def test_people_win_over_a_machine_whatever_the_order(tmp_path: Path) -> None:
    """Near duplicates, repeats and rows of one side: the human source stays, though it is listed last."""
    machine = [("Two men are riding their bicycles down a street.", "两个男人骑着自行车在街上走。"), PAIRS[0], PAIRS[3]]
    human = [("Two men are riding their bicycles down the street.", "两个男人骑着自行车在街上走。"), PAIRS[0]]
    write_tsv(tmp_path / "machine.tsv", machine)
    write_tsv(tmp_path / "human.tsv", human)
    sources = [
        {"name": "a", "format": "tsv", "files": ["machine.tsv"], "machine": "opus"},
        {"name": "b", "format": "tsv", "files": ["human.tsv"]},
    ]
    config = write_config(tmp_path, sources, valid_per_domain=0, limits={"near_duplicate": 0.7})
    report = built(config)
    assert [source["rejected"] for source in report["sources"]] == [{"duplicate": 1, "near_duplicate": 1}, {}]
    assert report["rejects"]["near_duplicate"]["worst"][0]["place"] == "machine.tsv:1"
    assert [row["source"] for row in rows(tmp_path / "corpus")] == ["machine:a", "b", "b"]


def test_the_same_zh_limit_leaves_a_dictionary_its_senses(tmp_path: Path) -> None:
    words = ["strike", "hit", "beat", "break", "type", "mix", "build", "fight", "fetch", "make", "play", "draw"]
    (tmp_path / "d.u8").write_text(f"打 打 [da3] /{'/'.join(words)}/\n", encoding="utf-8")
    source = {"name": "d", "format": "cedict", "files": ["d.u8"], "domain": "dictionary", "senses": 11}
    report = built(write_config(tmp_path, [source], valid_per_domain=0, limits={"min_en_chars": 2}))
    assert report["rows_kept"] == 11
    assert {reason: entry["rows"] for reason, entry in report["rejects"].items()} == {"rare_sense": 1}
