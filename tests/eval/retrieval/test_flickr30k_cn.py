import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from data.cli import UserError, run_cli
from distill.export.results import METRICS, RECALLS
from eval.datasets.benchmark import BENCHMARKS, read_benchmark
from eval.flickr30k_cn import main
from eval.metrics import positive_ranks, recalls
from eval.retrieval.command import run_benchmark
from eval.retrieval.images import image_features, load_image_tower
from eval.retrieval.models import load_text_tower, text_features
from eval.retrieval.result import OPENAI, PROTOCOLS, ProtocolName, RetrievalResult
from eval.retrieval.score import load_features
from tests.eval import files as small
from tests.eval.files import Files
from tests.eval.tiny import save_text_half

ROOT = Path(__file__).parents[3]
KEYS = [metric.key for metric in METRICS]


def score(*arguments: object) -> RetrievalResult:
    return run_benchmark(
        BENCHMARKS["flickr30k-cn"], [str(argument) for argument in (*arguments, "--title", "A few pictures")]
    )


def scores(result: RetrievalResult) -> dict[tuple[str, str], list[float]]:
    return {(row.model, row.language): row.scores.round(6).tolist() for row in result.rows}


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny student of the real teacher's width, which scores what it wants beside it."""
    monkeypatch.setattr("tests.eval.tiny.WIDTH", 256)
    return save_text_half(tmp_path / "wide")


def published(
    real: Path, student: Path, folder: Path, languages: tuple[str, ...]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of a student and the real teacher on its development set in the given languages."""
    data, out = folder / "captions.jsonl", folder / "result.json"
    lines = [json.loads(line) for line in (real / "dev" / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{key: value for key, value in line.items() if key in ("image", *languages)} for line in lines]
    data.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")
    score(
        "--student", student, "--clip", real / "teacher", "--data", data,
        "--image-features", real / "dev" / "features.npz", "--out", out,
    )  # fmt: skip
    return {(row["model"], row["language"]): row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}


def test_the_published_figures_of_the_real_teacher(real: Path, wide: Path, tmp_path: Path) -> None:
    """Those of its README, to the digit."""
    rows = published(real, wide, tmp_path, ("en",))
    assert list(rows) == [("student", "en"), ("teacher", "en")]
    ceiling = rows["teacher", "en"]
    assert [round(ceiling[recall.key], 1) for recall in RECALLS] == [11.7, 28.2, 38.4, 11.9, 31.0, 40.4]
    assert round(ceiling["mr"], 2) == 26.94
    low, high = ceiling["ci95"]["mr"]
    assert 2 < 26.94 - low < 3
    assert 2 < high - 26.94 < 3


def test_chinese_captions_that_the_real_teacher_cuts(real: Path) -> None:
    """20 captions are longer in its bytes than the tower has slots."""
    tower = load_text_tower(str(real / "teacher"), "--clip", torch.float32, torch.device("cpu"))
    texts = read_benchmark(str(real / "dev" / "captions.jsonl")).captions["zh"].texts
    assert text_features(tower, sorted(texts, key=len)[-60:], OPENAI).cut == 20


@pytest.mark.slow
def test_the_published_figure_of_the_real_teacher_fed_chinese(real: Path) -> None:
    """It is at chance; the cut of 20 captions decides the figure."""
    tower = load_text_tower(str(real / "teacher"), "--clip", torch.float32, torch.device("cpu"))
    benchmark = read_benchmark(str(real / "dev" / "captions.jsonl"))
    pictures = load_features(real / "dev" / "features.npz", benchmark.images, tower.feature_dim)
    captions = benchmark.captions["zh"]
    encoded = text_features(tower, captions.texts, OPENAI)
    there = recalls(positive_ranks(encoded.features, pictures, captions.pairs))
    back = recalls(positive_ranks(pictures, encoded.features, captions.pairs[:, ::-1]))
    assert encoded.cut == 20
    assert round(float(np.concatenate([there, back]).mean()), 2) == 0.94


def with_translations(path: Path, texts: Callable[[dict[str, Any]], list[str]], source: Path) -> Path:
    """The benchmark at `source` with `texts` of each line as zh_en."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({**row, "zh_en": texts(row)}, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_translations_of_the_chinese_are_the_fair_ceiling(
    clip: Path, student: Path, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    translated = with_translations(
        tmp_path / "t.jsonl", lambda row: [f"{row['en'][0]} number {n}" for n in range(len(row["zh"]))], files.jsonl
    )
    images = ("--images", files.csv.parent / "flickr30k-images")
    result = score("--student", student, "--clip", clip, "--data", translated, *images)
    assert [(row.model, row.language) for row in result.rows[:2]] == [("teacher", "zh_en"), ("student", "zh")]
    fair, zh = result.rows[:2]
    assert [ratio.name for ratio in result.ratios[:2]] == ["student-zh/teacher-zh_en", "student-zh/teacher-en"]
    share = result.ratios[0]
    assert share.percent == pytest.approx(100 * zh.scores[6] / fair.scores[6])
    drawn = 100 * zh.replicates[:, 6] / fair.replicates[:, 6]  # the same images in each draw: paired
    assert share.ci95 == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    # A teacher that is its own student, and a file whose English is the translation: the share is exactly 100 %.
    same = with_translations(tmp_path / "s.jsonl", lambda row: row["zh"], files.jsonl)
    own = score("--student", clip, "--clip", clip, "--data", same, *images)
    assert (own.ratios[0].percent, own.ratios[0].ci95) == (100.0, (100.0, 100.0))
    out = capsys.readouterr().out
    assert out.index("on translations of the Chinese") < out.index("student ")
    assert "student on Chinese, share of the teacher on translations of the Chinese: 100.00 % [100.00, 100.00]" in out


def test_a_translation_for_each_chinese_caption_or_none(
    clip: Path, student: Path, files: Files, tmp_path: Path
) -> None:
    short = with_translations(tmp_path / "t.jsonl", lambda row: row["en"][:1], files.jsonl)
    with pytest.raises(UserError, match=r"t\.jsonl:1: 2 captions in zh and 1 in zh_en; translate every"):
        score("--student", student, "--clip", clip, "--data", short)


def test_the_fair_ceiling_of_the_real_photographs(real: Path, wide: Path, tmp_path: Path) -> None:
    """`dev/captions.native1.jsonl`: 29.43, one hit of 764 x 6 more or less.

    Its en is its zh_en again and would give the same figure. The Chinese stands for itself with one character.
    """
    lines = (real / "dev" / "captions.native1.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(row["en"] == row["zh_en"] for row in rows)
    short = [{"image": row["image"], "zh": [text[:1] for text in row["zh"]], "zh_en": row["zh_en"]} for row in rows]
    data = tmp_path / "captions.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in short), encoding="utf-8")
    result = score(
        "--student", wide, "--clip", real / "teacher", "--data", data,
        "--image-features", real / "dev" / "features.npz",
    )  # fmt: skip
    found = {(row.model, row.language): round(row.mean_recall, 2) for row in result.rows}
    assert found["teacher", "zh_en"] == pytest.approx(29.43, abs=0.025)  # by the CPU's rounding


@pytest.mark.slow
def test_the_published_figure_of_all_five_captions(real: Path, wide: Path, tmp_path: Path) -> None:
    assert round(published(real, wide, tmp_path, ("en_all",))["teacher", "en_all"]["mr"], 2) == 50.88


def test_the_whole_clip_on_every_layout_gives_one_result(clip: Path, student: Path, files: Files) -> None:
    found = [
        scores(score("--student", student, "--clip", clip, "--data", path))
        for path in (files.chinese_clip, files.csv, files.jsonl, files.hub)
    ]
    for other in found:
        assert other["student", "zh"] == found[0]["student", "zh"]
        assert other["teacher", "zh"] == found[0]["teacher", "zh"]
    assert found[2] == found[3]
    assert set(found[2]) == {("student", "zh"), ("student", "en"), ("teacher", "en"), ("teacher", "zh")}
    assert set(found[0]) == {("student", "zh"), ("teacher", "zh")}


@pytest.mark.parametrize("protocol", ["chinese-clip", "openai"])
def test_ready_features_score_as_the_image_tower_does(
    protocol: ProtocolName, clip: Path, teacher: Path, student: Path, files: Files, tmp_path: Path
) -> None:
    tower = load_image_tower(str(clip), "--clip", torch.float32, torch.device("cpu"))
    ids = [small.name(number) for number in range(small.IMAGES)]
    transform = PROTOCOLS[protocol].transform
    features = image_features(tower, ids, lambda image: small.picture(ids.index(image)), transform)
    shuffle = np.random.default_rng(0).permutation(small.IMAGES)
    np.savez(tmp_path / "f.npz", ids=np.array(ids)[shuffle], features=features[shuffle].astype(np.float64) * 3)
    common = ("--student", student, "--data", files.jsonl, "--protocol", protocol)
    whole = score(*common, "--clip", clip)
    ready = score(*common, "--clip", teacher, "--image-features", tmp_path / "f.npz")
    assert scores(whole) == scores(ready)
    assert (whole.settings["transform"], ready.settings["transform"]) == (transform, "ready features")


def test_squash_and_crop_are_different_scores(clip: Path, student: Path, files: Files) -> None:
    common = ("--student", student, "--clip", clip, "--data", files.jsonl)
    squash, crop = (score(*common, "--protocol", protocol) for protocol in ("chinese-clip", "openai"))
    assert scores(squash) != scores(crop)


def test_result_file_and_table(
    clip: Path, student: Path, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    out.write_text("old")
    score("--student", student, "--clip", clip, "--data", files.jsonl, "--out", out)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    for row in result["rows"]:
        assert set(row) == {"model", "language", *KEYS, "ci95", "captions", "images", "cut"}
        assert set(row["ci95"]) == set(KEYS)
        assert row["mr"] == pytest.approx(sum(row[recall.key] for recall in RECALLS) / 6, abs=1e-3)
        assert all(row["ci95"][name][0] <= row[name] <= row["ci95"][name][1] for name in KEYS)
    settings = result["settings"]
    assert settings["protocol"] == "chinese-clip"
    assert (settings["transform"], settings["max_length"], settings["precision"]) == ("squash", 52, "fp32")
    assert {Path(name).name for name in settings["sha256"]} >= {"bilingual.jsonl", "model.safetensors"}
    assert set(settings) >= {"commit", "seconds", "versions", "bootstrap", "command"}
    told = capsys.readouterr()
    assert settings["benchmark"] == "A few pictures"
    assert "reference" in told.out
    assert "floor" in told.out
    assert "student on Chinese, share of the teacher on English: " in told.out


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ((), "12 images and 24 captions in zh, not the 1000 images and 5000 captions of Flickr30K-CN's .*--title NAME"),
        (("--title", "Flickr30K-CN"), "--title 'Flickr30K-CN': name another set than a published one"),
        (("--title", "COCO-CN"), "--title 'COCO-CN': "),
        (("--title", " "), "--title ' ': "),
    ],
)
def test_another_count_than_published_is_refused(
    clip: Path, student: Path, files: Files, tmp_path: Path, title: tuple[str, ...], said: str
) -> None:
    """Unless it is said to be another set, its scores would be read beside the peers'."""
    arguments = ("--student", student, "--clip", clip, "--data", files.jsonl, "--out", tmp_path / "result.json", *title)
    with pytest.raises(UserError, match=said):
        run_benchmark(BENCHMARKS["flickr30k-cn"], [str(argument) for argument in arguments])
    assert not (tmp_path / "result.json").exists()


def test_cut_captions_are_said_on_one_line(
    clip: Path, student: Path, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    score("--student", student, "--clip", clip, "--data", files.csv, "--max-length", 20)
    assert "student zh: 12 of 24 captions are over 20 tokens and were cut\n" in capsys.readouterr().err


def bad_towers(folder: Path, good: Path) -> dict[str, str]:
    """Folders that look like a student and are none, with what must be said of each."""
    said = {}

    def spoil(name: str, message: str) -> Path:
        shutil.copytree(good, folder / name)
        said[name] = message
        return folder / name

    (folder / "empty").mkdir(parents=True)
    said["empty"] = "no config.json"
    (folder / "model.ckpt").write_bytes(b"x")
    said["model.ckpt"] = "a file; name the folder of a model in safetensors, never a pickle"
    (spoil("noweights", "no weights; save it as") / "model.safetensors").unlink()
    pickle = spoil("pickle", r"only pytorch_model\.bin, a pickle")
    (pickle / "model.safetensors").rename(pickle / "pytorch_model.bin")
    cut = spoil("cut", "holds no CLIP text tower in safetensors") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:3000])
    lacking = spoil("lacking", "has no weight text_projection.weight")
    weights = load_file(lacking / "model.safetensors")
    save_file({key: weights[key] for key in weights if "projection" not in key}, lacking / "model.safetensors")
    for name, value, message in (
        ("legacy", 2, "eos_token_id 2 and the tokenizer 519"),
        ("none", None, "eos_token_id None and the tokenizer 519"),
    ):
        path = spoil(name, message) / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": value, "vocab_size": 520}))
    # 2 is right where the end of text is the largest id, as it is in OpenAI's own files; here a row stands above it.
    config = json.loads((folder / "legacy" / "config.json").read_text())
    (folder / "legacy" / "config.json").write_text(json.dumps({**config, "vocab_size": 521}))
    grown = load_file(folder / "legacy" / "model.safetensors")
    key = "text_model.embeddings.token_embedding.weight"
    grown[key] = torch.cat([grown[key], grown[key][:1]])
    save_file(grown, folder / "legacy" / "model.safetensors", {"format": "pt"})
    words = spoil("words", "its tokenizer has 520 tokens and its model 500")
    (words / "config.json").write_text(json.dumps({**config, "vocab_size": 500, "bos_token_id": 1, "eos_token_id": 3}))
    weights[key] = weights[key][:500]
    save_file(weights, words / "model.safetensors", {"format": "pt"})
    return said


def test_a_folder_that_is_not_a_student_is_refused(teacher: Path, clip: Path, files: Files, tmp_path: Path) -> None:
    said = bad_towers(tmp_path / "bad", teacher)
    for name, message in {**said, "absent": "no such folder"}.items():
        with pytest.raises(UserError, match=f"--student.*/{name}'?:? .*{message}"):
            score("--student", tmp_path / "bad" / name, "--clip", clip, "--data", files.csv)
    CLIPTextModel.from_pretrained(teacher).save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match=r"--clip: .*/plain' holds no tokenizer"):
        score("--student", teacher, "--clip", tmp_path / "plain", "--data", files.csv)


def test_towers_and_features_that_do_not_fit(
    teacher: Path, clip: Path, student: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="has no image tower; give a whole CLIPModel or --image-features"):
        score("--student", student, "--clip", teacher, "--data", files.csv)
    monkeypatch.setattr("tests.eval.tiny.WIDTH", 8)
    narrow = save_text_half(tmp_path / "narrow")
    with pytest.raises(UserError, match="its features have width 8, those of --clip 16"):
        score("--student", narrow, "--clip", clip, "--data", files.csv)
    ids = np.array([small.name(number) for number in range(small.IMAGES)])
    whole = np.random.default_rng(0).normal(size=(small.IMAGES, 16))
    broken = whole.copy()
    broken[3] = np.nan
    (tmp_path / "text.npz").write_text("not a zip")
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "fewer": ({"ids": ids[:-2], "features": whole[:-2]}, r"no features of 2 of 12 images, '1370\.jpg' first"),
        "width": ({"ids": ids, "features": whole[:, :5]}, "features of width 5, but the text tower .* has width 16"),
        "shape": ({"ids": ids[:5], "features": whole}, r"ids \(5,\) and features \(12, 16\) must be"),
        "nan": ({"ids": ids, "features": broken}, "zero or not finite"),
        "keys": ({"names": ids, "features": whole}, "it needs the arrays ids and features"),
        "twice": ({"ids": np.append(ids, ids[:1]), "features": np.append(whole, whole[:1], 0)}, "holds 1 names twice"),
        "pickled": ({"ids": ids.astype(object), "features": whole}, "not a readable .npz"),
    }
    for name, (arrays, _) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    messages = {name: message for name, (_, message) in cases.items()}
    for name, message in {**messages, "text": "not a readable .npz", "absent": "no such file"}.items():
        with pytest.raises(UserError, match=f"{name}.npz: .*{message}|{name}.npz: {message}"):
            score(
                "--student", student, "--clip", teacher, "--data", files.csv,
                "--image-features", tmp_path / f"{name}.npz",
            )  # fmt: skip


def test_bad_options(student: Path, clip: Path, files: Files, tmp_path: Path) -> None:
    common = ("--student", student, "--clip", clip, "--data", files.csv)
    for arguments, message in (
        (("--out", tmp_path), "a folder; name a file"),
        (("--out", tmp_path / "no" / "result.json"), "no folder .*; make it first"),
        (("--max-length", 2), "need 3"),
        (("--max-length", 500), "the towers have"),
        (("--device", "meta"), "--device meta: "),
        (("--device", "cuda:77"), "--device cuda:77"),
    ):
        with pytest.raises(UserError, match=message):
            score(*common, *arguments)


MISTAKES: list[tuple[list[str], str]] = [
    (["--student", "S", "--clip", "C"], "data"),
    (["--student", "S", "--clip", "C", "--data", "D", "--nonsense", "1"], "nonsense"),
    (["--student", "S", "--clip", "C", "--data", "D", "--protocol", "mine"], "protocol"),
    (["--student", "S", "--clip", "C", "--data", "no/such/file"], "no/such/file"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES)
def test_a_mistake_is_one_line_and_code_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flickr30k_cn", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_cli(main)
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1


def test_the_real_command_writes_nothing_after_a_mistake(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eval.flickr30k_cn", *MISTAKES[3][0], "--out", str(tmp_path / "r.json")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: --data no/such/file: no such file or folder")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
