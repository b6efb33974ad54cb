"""Scores of aligned prompts against hand-made ones, and the command with its report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.cli import UserError
from distill.api import load_student
from distill.geometry import CrossAttention, Geometry
from distill.unet_geometry import write_geometry
from eval.prompts.__main__ import run_prompts
from eval.prompts.aligned import AlignedPrompt
from eval.prompts.scores import matching_rows
from eval.report.__main__ import main as report

ROWS: list[dict[str, Any]] = [
    {"zh": "猫", "en": "the cat", "kind": "animals", "mixed": "猫 cat", "zh_hant": "貓"},
    {"zh": "狗", "en": "the dog", "kind": "animals", "zh_en": "dog"},
    {"zh": "小狗", "en": "the dog", "kind": "animals"},  # the same English: either is right
    {"zh": "山", "en": "the the", "kind": "<b>places", "tags": ["hills", "far"]},
    {"zh": "月" * 60, "en": "cat " * 80, "kind": "<b>places"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(student: Path, teacher: Path, data: Path, *arguments: object) -> dict[str, Any]:
    return run_prompts([str(each) for each in ("--student", student, "--clip", teacher, "--data", data, *arguments)])


def test_scores_are_those_of_the_features(student: Path, teacher: Path, data: Path) -> None:
    result = run(student, teacher, data)
    zh = load_student(student).encode([row["zh"] for row in ROWS])
    en = load_student(teacher).encode([row["en"] for row in ROWS])
    similarity = zh @ en.T
    right = np.array([[a["en"] == b["en"] for b in ROWS] for a in ROWS])
    to_en = [100.0 * right[i, similarity[i].argmax()] for i in range(5)]
    to_zh = [100.0 * right[similarity[:, i].argmax(), i] for i in range(5)]
    scores = result["scores"][0]
    assert (scores["model"], scores["form"], scores["prompts"]) == ("student", "zh", 5)
    assert (scores["to_en_r1"], scores["to_zh_r1"]) == (np.mean(to_en), np.mean(to_zh))
    assert scores["r1"] == pytest.approx((np.mean(to_en) + np.mean(to_zh)) / 2)
    assert scores["to_en_r10"] == 100  # there are five
    assert scores["cosine"] == pytest.approx(similarity.diagonal().mean(), abs=1e-4)
    animals = result["groups"]["kind"]["animals"]
    assert (animals["prompts"], animals["cosine"]) == (3, pytest.approx(similarity.diagonal()[:3].mean(), abs=1e-4))
    assert set(result["groups"]) == {"kind", "tags", "with a form"}
    assert result["groups"]["with a form"]["mixed"]["cosine"] == pytest.approx(similarity[0, 0], abs=1e-4)
    first = [scores["r1"] for scores in result["groups"]["kind"].values()]
    assert first == sorted(first)
    assert result["over_length"] == {"tokens": 77, "zh": 20.0, "en": 20.0, "either": 20.0}


def test_rows_of_every_form_and_model(student: Path, teacher: Path, translator: Path, data: Path) -> None:
    scores = run(student, teacher, data, "--translator", translator)["scores"]
    assert [(row["model"], row["form"], row["prompts"]) for row in scores] == [
        ("student", "zh", 5), ("student", "mixed", 1), ("student", "zh_hant", 1), ("teacher", "zh_en", 1),
        ("student", "en", 5), ("teacher", "zh", 5), ("mt+teacher", "zh", 5),
    ]  # fmt: skip
    english = load_student(teacher).encode([row["en"] for row in ROWS])
    similarity = english[1] @ load_student(teacher).encode(["dog"])[0]
    assert scores[3]["cosine"] == pytest.approx(similarity, abs=1e-4)
    others = [english[1] @ english[number] for number in (0, 2, 3, 4)]  # beside a translation stands English
    assert scores[3]["to_zh_r1"] == 100 * (max(similarity, others[1]) >= max(others))
    for row in scores:
        assert row["ci95"]["r1"][0] <= row["r1"] <= row["ci95"]["r1"][1]


def test_a_teacher_that_is_its_own_student_finds_its_english(teacher: Path, data: Path) -> None:
    result = run(teacher, teacher, data)
    english = next(row for row in result["scores"] if row["form"] == "en")
    assert (english["to_en_r1"], english["to_zh_r1"], english["cosine"]) == (100, 100, pytest.approx(1))


def test_worst_prompts_with_what_they_found(student: Path, teacher: Path, data: Path) -> None:
    result = run(student, teacher, data, "--worst", 2)
    assert len(result["worst"]) == 2
    ranks = [row["rank"] for row in run(student, teacher, data)["worst"]]
    assert ranks == sorted(ranks, reverse=True)
    for row in result["worst"]:
        assert (row["rank"] == 1) == (row["found"] == row["en"])


def test_prompts_of_one_english_or_one_chinese_are_right_for_each_other() -> None:
    prompts = [AlignedPrompt(zh, en, {}, ()) for zh, en in (("a", "1"), ("b", "1"), ("b", "2"), ("c", "3"))]
    assert matching_rows(prompts).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 1], [2, 2], [3, 3]]


def geometry(path: Path, width: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    layers = tuple(
        CrossAttention(
            name=f"l{n}", heads=2, scale=0.5,
            query=torch.randn(3, 8, generator=generator),
            key=torch.randn(8, width, generator=generator), value=torch.randn(8, width, generator=generator),
            share=0.5,
        )
        for n in range(2)
    )  # fmt: skip
    write_geometry(Geometry(torch.eye(width), layers), path, {})
    return path


def test_read_out_errors(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    """Against softmax(q K^T) V written out, prompt by prompt."""
    path = geometry(tmp_path / "g.safetensors", 24)
    result = run(student, teacher, data, "--geometry", path)
    states = load_student(student).states([row["zh"] for row in ROWS])
    target = load_student(teacher).states([row["en"] for row in ROWS])
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(2):
        query, key, value = (torch.randn(size, generator=generator) for size in ((3, 8), (8, 24), (8, 24)))
        read = []
        for own in (states, target):
            heads = []
            for head in (slice(0, 4), slice(4, 8)):
                weights = torch.softmax(0.5 * query[:, head] @ (own @ key.T)[:, :, head].transpose(1, 2), dim=-1)
                heads.append(weights @ (own @ value.T)[:, :, head])
            read.append(torch.stack(heads, dim=1))
        errors.append((read[0] - read[1]).square().mean((1, 2, 3)) / read[1].square().mean() / 0.5)
    expected = torch.stack(errors).mean(0)
    assert result["scores"][0]["readout"] == pytest.approx(float(expected.mean()), abs=1e-4)
    assert result["groups"]["kind"]["animals"]["readout"] == pytest.approx(float(expected[:3].mean()), abs=1e-4)
    same = run(teacher, teacher, data, "--geometry", path)
    assert next(row["readout"] for row in same["scores"] if row["form"] == "en") == 0
    with pytest.raises(UserError, match="its UNet reads states of width 16, those of the student have 24"):
        run(student, teacher, data, "--geometry", geometry(tmp_path / "other.safetensors", 16))
    with pytest.raises(UserError, match=r"--geometry: no file .*absent"):
        run(student, teacher, data, "--geometry", tmp_path / "absent")


def test_only_one_group(student: Path, teacher: Path, data: Path) -> None:
    assert run(student, teacher, data, "--only", "kind=animals")["scores"][0]["prompts"] == 3
    with pytest.raises(
        UserError, match=r"--only kind=plants: 0 prompts of it, .* there are kind=<b>places, kind=animals"
    ):
        run(student, teacher, data, "--only", "kind=plants")


def test_a_difference_is_paired(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    first = run(student, teacher, data, "--out", tmp_path / "student.json")
    again = run(student, teacher, data, "--baseline", tmp_path / "student.json")["difference"]
    assert (again["r1"], again["ci95"]["r1"], again["cosine"]) == (0, [0, 0], 0)
    own = run(teacher, teacher, data, "--baseline", tmp_path / "student.json")
    gains = np.array(own["by_prompt"]["cosine"]) - first["by_prompt"]["cosine"]
    assert own["difference"]["cosine"] == pytest.approx(gains.mean(), abs=1e-4)
    low, high = own["difference"]["ci95"]["cosine"]
    assert gains.min() <= low <= own["difference"]["cosine"] <= high <= gains.max()
    with pytest.raises(UserError, match=r"--baseline .*student\.json: of other prompts"):
        run(student, teacher, data, "--only", "kind=animals", "--baseline", tmp_path / "student.json")
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(UserError, match=r"--baseline .*no\.json: by_prompt: Field required; give a result of"):
        run(student, teacher, data, "--baseline", tmp_path / "no.json")


def test_the_report_shows_where_the_student_loses(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    run(student, teacher, data, "--out", tmp_path / "result.json")
    report([str(tmp_path / "result.json"), "--out", str(tmp_path / "report.html")])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("Where the student loses, by kind", "&lt;b&gt;places", "student mixed", "5 worst prompts", "小狗"):
        assert text in page
    assert "<b>places" not in page
    assert list(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["prompts"]) == ["result"]
