"""Translations of a tiny run: scores against sacreBLEU's own on the sentences shown, retrieval by hand, mistakes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from sacrebleu import corpus_bleu

from data.command import UserError
from distill import main as distill_main
from distill.speaker import _SPACES
from eval.held_out import held_out
from eval.translation import retrieval, run, score
from tests.distill.tiny_clip import run_options, write_config, write_corpus, write_shard, write_teacher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with teacher, corpus and a run of forty steps; most of what it learns is to speak."""
    folder = tmp_path_factory.mktemp("translation")
    tree = run_options(write_teacher(folder / "teacher"), write_corpus(folder / "corpus"), folder / "run")
    tree["losses"] = {"translation": {"zh_from_zh": 1, "zh_from_en": 1, "decoder": {"layers": 1, "heads": 2}}}
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


def test_a_run_speaks(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "result.json"
    result = run(["--run", str(trained / "run"), "--corpus", str(trained / "corpus"), "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8")) == result
    assert [(row["domain"], row["direction"]) for row in result["rows"]] == [
        ("caption", "zh_from_zh"),
        ("caption", "zh_from_en"),
    ]
    for row in result["rows"]:
        assert row["sentences"] == 10
        assert "tok:zh" in row["bleu_signature"]
        assert "case:lc" in row["bleu_signature"]
        assert row["bleu_ci95"][0] <= row["bleu_ci95"][1]
    assert result["rows"][0]["bleu"] > 30, "ten held-out captions of words that it knows"
    shown = result["samples"][0]["sentences"]
    assert len(shown) == 5
    assert all(" " not in sentence["said"] for sentence in shown)
    assert [(row["zh"], row["en"]) for row in result["retrieval"]] == [
        ("student-zh", "teacher-en"),
        ("student-zh", "student-en"),
    ]
    assert result["settings"]["step"] == 160
    assert "zh_from_en" in capsys.readouterr().out


def test_score_is_sacrebleus() -> None:
    """BLEU of sacreBLEU's plain function; a perfect translation scores 100 whatever its case and spaces."""
    said, references = ["一只猫在草地上", "红色的狗"], ["一只猫在雪地上跑", "红色的狗"]
    found = score(said, references, "zh")
    assert found["bleu"] == pytest.approx(
        corpus_bleu(said, [references], tokenize="zh", lowercase=True).score, abs=1e-4
    )
    assert found["chrf_signature"].startswith("nrefs:1|")
    assert score(["a Cat，红 色"], ["A cat，红色"], "zh")["bleu"] == pytest.approx(100)
    assert score(["a cat sits here"], ["A cat sits here"], "en")["bleu"] == pytest.approx(100)


def test_retrieval_by_hand() -> None:
    """Row 1 finds row 0's English; from English, each finds its own or a tie."""
    chinese = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    english = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    found = retrieval(chinese, english)
    assert found["sentences"] == 3
    assert found["zh2en"] == pytest.approx(200 / 3, abs=1e-3)
    assert found["en2zh"] == pytest.approx(100)
    assert found["en2zh_ci95"] == [100, 100]
    assert found["zh2en_ci95"][0] < 200 / 3 < found["zh2en_ci95"][1]


def test_spaces_beside_chinese_go() -> None:
    assert _SPACES.sub("", "一只 猫 ， sd 风格 a cat") == "一只猫，sd风格a cat"


def test_held_out_rows_are_by_domain(tmp_path: Path) -> None:
    pairs = [("a", "一"), ("b", "二"), ("c", "三"), ("d", "四")]
    write_shard(tmp_path / "valid" / "part-00000.parquet", pairs, ["x", "y", "x", "x"])
    found = held_out(tmp_path, 2)
    assert {domain: pairs.zh for domain, pairs in found.items()} == {"x": ["一", "三"], "y": ["二"]}


def test_mistakes_are_one_line(trained: Path, tmp_path: Path) -> None:
    arguments = ["--run", str(trained / "run"), "--corpus", str(trained / "corpus")]
    with pytest.raises(UserError, match=r"no valid/\*.parquet there"):
        run([*arguments[:2], "--corpus", str(tmp_path)])
    with pytest.raises(UserError, match=r"no config\.yaml there"):
        run(["--run", str(tmp_path), *arguments[2:]])
    with pytest.raises(UserError, match=r"--step 3: .* has checkpoints 160"):
        run([*arguments, "--step", "3"])
    with pytest.raises(UserError, match="name a file in a folder that exists"):
        run([*arguments, "--out", str(tmp_path)])
    (tmp_path / "run").mkdir()
    text = (trained / "run" / "config.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("  translation:")
    (tmp_path / "run" / "config.yaml").write_text(
        head + "  translation: null\n" + rest[rest.index("  unet_geometry") :]
    )
    (tmp_path / "run" / "tokenizer").symlink_to(trained / "run" / "tokenizer")
    (tmp_path / "run" / "checkpoints").symlink_to(trained / "run" / "checkpoints")
    with pytest.raises(UserError, match=r"has no decoder; train one with losses\.translation"):
        run(["--run", str(tmp_path / "run"), *arguments[2:]])
