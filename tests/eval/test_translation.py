"""Translations of a tiny run: scores against sacreBLEU's own, the rows of every benchmark by domain, mistakes."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from sacrebleu import corpus_bleu

from data.cli import UserError
from distill.api import load_student, load_text_encoder
from distill.export.folder import export
from distill.export.main import main as export_run
from distill.export.results import METRICS
from distill.train import main as distill_main
from distill.train.checkpoint import open_run
from eval.datasets.benchmark import BENCHMARKS
from eval.metrics import bleu_and_chrf
from eval.pairs import Pairs, load_held_out
from eval.prompts.__main__ import run_prompts
from eval.report.__main__ import main as write_report
from eval.retrieval import command
from eval.retrieval.translators import _SPACES, DecoderTranslator
from eval.translation import bitext, run_translation
from tests.distill.tiny_clip import run_options, write_config, write_corpus, write_shard, write_teacher
from tests.eval.files import Files


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with teacher, corpus and a run of 160 steps; most of what it learns is to speak."""
    folder = tmp_path_factory.mktemp("translation")
    tree = run_options(write_teacher(folder / "teacher"), write_corpus(folder / "corpus"), folder / "run")
    tree["losses"] = {"translation": {"zh_from_zh": 1, "zh_from_en": 0, "en_from_zh": 1}}
    tree["losses"]["translation"]["decoder"] = {"layers": 1, "heads": 2}
    tree["losses"] |= {"hidden": None, "contrastive": None}
    tree["train"] |= {"steps": 160, "batch_size": 32, "lr": 0.005, "embedding_lr": 0.01, "save_every": 160}
    tree["train"] |= {"eval_every": 160, "english_every": 1, "full_share": 0.0, "log_every": 40, "warmup": 10}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(sys, "argv", ["distill.py", *write_config(folder / "c.yaml", tree)])
        AcceleratorState._reset_state(reset_partial_state=True)
        distill_main.main()
    yield folder
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


@pytest.fixture(scope="module")
def words(trained: Path) -> list[str]:
    """The options that name student, teacher and corpus."""
    run = open_run(trained / "run", None)
    export(run.student.to_clip(), run.tokenizer, trained / "student")
    return [
        "--student",
        str(trained / "student"),
        "--clip",
        str(trained / "teacher"),
        "--data",
        str(trained / "corpus"),
    ]


def test_a_run_speaks(trained: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_translation([*words, "--run", str(trained / "run")])
    assert [(row["domain"], row["model"], row["direction"]) for row in result["translations"]] == [
        ("caption", "decoder", "zh_from_zh"),
        ("caption", "decoder", "en_from_zh"),
    ]
    for row, kind in zip(result["translations"], ("tok:zh", "tok:13a"), strict=True):
        assert row["sentences"] == 10
        assert kind in row["bleu_signature"]
        assert "case:lc" in row["bleu_signature"]
        assert row["bleu_ci95"][0] <= row["bleu_ci95"][1]
        assert row["bleu"] > 30, "ten held-out captions of words that it knows"
    shown = result["translations"][0]["samples"]
    assert len(shown) == 5
    assert all(" " not in sentence["said"] for sentence in shown)
    assert result["settings"]["step"] == 160
    assert sum(name.endswith("weights.safetensors") for name in result["settings"]["sha256"]) == 1
    assert "en_from_zh" in capsys.readouterr().out


def test_an_export_reads_back(trained: Path, tmp_path: Path) -> None:
    """What the run's own decoder says of the same states, in every form of the student; then in prompts and report."""
    student = tmp_path / "student"
    export_run(["--run", str(trained / "run"), "--out", str(student), "--parts", "decoder"])
    assert sorted(path.name for path in (student / "decoder").iterdir()) == ["config.json", "model.safetensors"]
    texts = [*load_held_out(trained / "corpus", 3)["caption"].zh, "马", ""]
    own = DecoderTranslator(trained / "run", None, torch.device("cpu")).translate(texts, "en", 4)
    assert len({*own}) > 3
    for encoder in (load_student(student), load_text_encoder(student, "t")):
        assert [encoder.read_back(text) for text in texts] == own
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"zh": zh, "en": en}) + "\n" for zh, en in zip(texts[:3], "abc", strict=True))
    )
    names = ["--student", str(student), "--clip", str(trained / "teacher"), "--data", str(prompts)]
    result = run_prompts([*names, "--out", str(tmp_path / "result.json")])
    assert {row["zh"]: row["read"] for row in result["worst"]} == dict(zip(texts[:3], own[:3], strict=True))
    write_report([str(tmp_path / "result.json"), "--out", str(tmp_path / "report.html")])
    assert f'<td class="text">{own[0]}</td>' in (tmp_path / "report.html").read_text(encoding="utf-8")
    shutil.rmtree(student / "decoder")
    with pytest.raises(UserError, match="read_back: this student has no decoder; export one with --parts decoder"):
        load_student(student).read_back("猫")


def test_the_result_is_that_of_a_benchmark(
    words: list[str], clip: Path, student: Path, files: Files, translator: Path, tmp_path: Path
) -> None:
    """The schema of `eval.flickr30k_cn`, and a domain for each row."""
    whole = run_translation([*words, "--translator", str(translator), "--out", str(tmp_path / "result.json")])
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == json.loads(json.dumps(whole))
    assert [(row["domain"], row["model"], row["language"]) for row in whole["rows"]] == [
        ("caption", model, language)
        for model, language in (
            ("student", "zh"), ("student", "en"), ("teacher", "en"), ("teacher", "zh"), ("mt+teacher", "zh")
        )
    ]  # fmt: skip
    assert [whole["rows"][2][metric.key] for metric in METRICS] == [100] * 7, "the teacher's English is the ceiling"
    assert "caption: student-zh/teacher-en" in whole["ratios"]
    assert [(each["model"], each["direction"]) for each in whole["translations"]] == [("mt", "en_from_zh")]
    flickr = ["--student", student, "--clip", clip, "--data", files.jsonl, "--translator", translator, "--title", "few"]
    other = command.run_benchmark(BENCHMARKS["flickr30k-cn"], [str(each) for each in flickr]).to_json()
    assert set(whole["rows"][0]) - {"domain"} == set(other["rows"][0])
    assert set(whole["settings"]) - {"rows_per_domain"} == set(other["settings"])
    assert set(whole) - {"translations"} == set(other)


def test_every_translation_of_a_sentence_is_right() -> None:
    """Two pairs share their English, two their Chinese; the gallery holds each English sentence once."""
    found = bitext(Pairs(["a", "a", "b", "c"], ["一", "二", "三", "三"], ["x"] * 4))
    assert found.images == ("a", "b", "c")
    assert found.captions["zh"].texts == ("一", "二", "三")
    assert found.captions["zh"].pairs.tolist() == [[0, 0], [1, 0], [2, 1], [2, 2]]
    assert found.captions["en"].pairs.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_score_is_sacrebleus() -> None:
    """BLEU of sacreBLEU's plain function; a perfect translation scores 100 whatever its case and spaces."""
    said, references = ["一只猫在草地上", "红色的狗"], ["一只猫在雪地上跑", "红色的狗"]
    found = bleu_and_chrf(said, references, "zh")
    assert found["bleu"] == pytest.approx(
        corpus_bleu(said, [references], tokenize="zh", lowercase=True).score, abs=1e-4
    )
    assert found["chrf_signature"].startswith("nrefs:1|")
    assert bleu_and_chrf(["a Cat，红 色"], ["A cat，红色"], "zh")["bleu"] == pytest.approx(100)
    assert bleu_and_chrf(["a cat sits here"], ["A cat sits here"], "en")["bleu"] == pytest.approx(100)


def test_spaces_beside_chinese_go() -> None:
    assert _SPACES.sub("", "一只 猫 ， sd 风格 a cat") == "一只猫，sd风格a cat"


def test_held_out_rows_are_by_domain(tmp_path: Path) -> None:
    pairs = [("a", "一"), ("b", "二"), ("c", "三"), ("d", "四")]
    write_shard(tmp_path / "valid" / "part-00000.parquet", pairs, ["x", "y", "x", "x"])
    found = load_held_out(tmp_path, 2)
    assert {domain: pairs.zh for domain, pairs in found.items()} == {"x": ["一", "三"], "y": ["二"]}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (None, r"0\.parquet: not readable .*; build the corpus again"),
        ({"en": ["a"], "domain": ["x"]}, r"0\.parquet: not readable .*zh"),
        ({"en": ["a"], "zh": ["一"], "domain": [None]}, "column 'domain' is null with 1 nulls"),
        ({"en": ["a", None], "zh": ["一", "二"], "domain": ["x", "x"]}, "column 'en' is string with 1 nulls"),
        ({"en": [1], "zh": ["一"], "domain": ["x"]}, "column 'en' is int64 with 0 nulls, not text in every row"),
        ({"en": pa.array([b"\xff"]).view(pa.string()), "zh": ["一"], "domain": ["x"]}, "not readable .*UTF8"),
    ],
)
def test_a_damaged_corpus(columns: dict[str, Any] | None, said: str, tmp_path: Path) -> None:
    (tmp_path / "valid").mkdir()
    if columns is None:
        (tmp_path / "valid" / "0.parquet").write_bytes(b"PAR1 junk PAR1")
    else:
        pq.write_table(pa.table(columns), tmp_path / "valid" / "0.parquet")
    with pytest.raises(UserError, match=said):
        load_held_out(tmp_path, 2)


def test_mistakes_are_one_line(trained: Path, words: list[str], tmp_path: Path) -> None:
    arguments = [*words, "--run", str(trained / "run")]
    with pytest.raises(UserError, match=r"no valid/\*.parquet there"):
        run_translation([*words[:4], "--data", str(tmp_path)])
    with pytest.raises(UserError, match=r"no config\.yaml there"):
        run_translation([*words, "--run", str(tmp_path)])
    with pytest.raises(UserError, match=r"--step 3: .* has checkpoints 160"):
        run_translation([*arguments, "--step", "3"])
    with pytest.raises(UserError, match="--step: is a checkpoint of --run"):
        run_translation([*words, "--step", "160"])
    with pytest.raises(UserError, match="a folder; name a file"):
        run_translation([*arguments, "--out", str(tmp_path)])
    write_shard(tmp_path / "one" / "valid" / "0.parquet", [("a", "一"), ("a", "二")], ["x", "x"])
    with pytest.raises(UserError, match="no domain of its valid/ has two different sentences"):
        run_translation([*words[:4], "--data", str(tmp_path / "one")])
    (tmp_path / "run").mkdir()
    text = (trained / "run" / "config.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("  translation:")
    (tmp_path / "run" / "config.yaml").write_text(
        head + "  translation: null\n" + rest[rest.index("  unet_geometry") :]
    )
    (tmp_path / "run" / "tokenizer").symlink_to(trained / "run" / "tokenizer")
    (tmp_path / "run" / "checkpoints").symlink_to(trained / "run" / "checkpoints")
    with pytest.raises(UserError, match=r"has no decoder; train one with losses\.translation"):
        run_translation([*words, "--run", str(tmp_path / "run")])


def test_a_few_sentences_of_which_some_draws_have_nothing_right_still_have_an_interval() -> None:
    found = bleu_and_chrf(["一只黄色的猫在雪地里", "狗"], ["一只黄色的猫在雪地里", "房子"], "zh")
    for name in ("bleu", "chrf"):
        low, high = found[f"{name}_ci95"]
        assert low < found[name] < high
