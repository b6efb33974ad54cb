"""A finished student's Chinese on the encoder of another checkpoint: `init`, `init_teacher`."""

import shutil
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import CLIPTextModelWithProjection

from data.cli import UserError, run_cli
from distill.export.main import main as export
from distill.loading import base_model, load_clip_tokenizer
from distill.student.chinese_bpe import VocabularyConfig
from distill.student.extended import ExtendedConfig, Freeze, load_graft
from distill.text_tower import load_pretrained, load_tower
from distill.train.config import read_stored_config
from distill.train.main import main
from distill.train.pair import stage_configs
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, teacher_model, teacher_tokenizer, weights_at, write_config

TABLE = "text_model.embeddings.token_embedding"
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def init(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained for three steps, exported."""
    folder = tmp_path_factory.mktemp("init")
    tree = run_options(teacher, corpus, folder / "run")
    tree["train"] |= {"steps": 3, "lr": 0.01}
    with pytest.MonkeyPatch.context() as patch:
        train(tree, patch, folder)
    export(["--run", str(folder / "run"), "--out", str(folder / "student")])
    return folder / "student"


@pytest.fixture(scope="module")
def tuned(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of a fine-tuned checkpoint: every weight of the teacher's has moved a little."""
    folder = tmp_path_factory.mktemp("tuned")
    model = teacher_model(len(teacher_tokenizer()))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    model.save_pretrained(folder)
    teacher_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def tree(tuned: Path, corpus: Path, tmp_path: Path, init: Path, teacher: Path) -> Tree:
    return {**run_options(tuned, corpus, tmp_path / "run"), "init": str(init), "init_teacher": str(teacher)}


def train(tree: Tree, monkeypatch: pytest.MonkeyPatch, folder: Path, processes: int = 1) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(folder / "c.yaml", tree)])
    if processes == 1:
        main()
    else:
        two_processes(lambda _: main(), folder)


def tower(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_tower(str(folder), "t").state_dict()
    return state


@pytest.mark.parametrize("freeze", get_args(Freeze))
def test_the_start_by_hand(freeze: Freeze, init: Path, teacher: Path, tuned: Path, tmp_path: Path) -> None:
    """Theirs + student - teacher in what trains, theirs in what does not, the student's rows of new tokens."""
    moved = shutil.copytree(init, tmp_path / "moved")
    model = CLIPTextModelWithProjection.from_pretrained(moved)
    model.get_parameter(f"{TABLE}.weight").data[:9] += 0.1  # as a student of `freeze: none` has them
    model.save_pretrained(moved)
    theirs = load_pretrained(str(tuned))
    made = ExtendedConfig(VocabularyConfig(12, 1), freeze).build(theirs, load_clip_tokenizer(str(init), "t"), {}, True)
    load_graft(str(moved), str(teacher), theirs).apply(made)
    student, own, target = tower(moved), tower(teacher), tower(tuned)
    old = len(own[f"{TABLE}.weight"])
    for name, weight in made.to_clip().state_dict().items():
        if name == f"{TABLE}.weight":
            new = made.embedding.row_of_id >= old  # a full-width comma keeps the row of theirs
            assert 0 < new.sum() < len(weight) - old
            assert weight[new].equal(student[name][new])
            moving = student[name][:old] - own[name] if freeze == "none" else 0
            assert weight[:old].equal(target[name] + moving)
        elif freeze == "transformer" or name == "text_projection.weight":
            assert weight.equal(target[name]), name
        else:
            assert weight.equal(target[name] + (student[name] - own[name])), name
            assert not student[name].equal(own[name]) or "k_proj.bias" in name


def test_a_run_starts_there(
    tree: Tree, init: Path, teacher: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One step with rates of 0 keeps the start, also on two processes; tokens are the student's."""
    tree["train"] |= {"steps": 1, "lr": 0.0, "embedding_lr": 0.0}
    tree["data"] |= {"token_store": str(tmp_path / "tokens")}
    train(tree, monkeypatch, tmp_path)
    start, name = weights_at(tmp_path / "run", 1), "text_model.encoder.layers.0.mlp.fc1.weight"
    assert start[f"text.{name}"].equal(tower(tuned)[name] + (tower(init)[name] - tower(teacher)[name]))
    for text in ("草地上的一只红色的猫", "a red cat，红色。"):
        ids = [load_clip_tokenizer(str(each), "t")(text).input_ids for each in (init, tmp_path / "run" / "tokenizer")]
        assert ids[0] == ids[1]
    train({**tree, "out_dir": str(tmp_path / "both")}, monkeypatch, tmp_path, processes=2)
    assert all(weights_at(tmp_path / "both", 1)[name].equal(weight) for name, weight in start.items())


def test_it_is_stored_resumes_without_the_student_and_exports(
    tree: Tree, init: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two steps and two more are four, bit for bit, with the student gone."""
    tree["train"] |= {"steps": 4, "save_every": 2, "eval_every": 4}
    train(tree, monkeypatch, tmp_path)
    stored = read_stored_config(tmp_path / "run" / "config.yaml")
    assert (stored.init, stored.init_teacher) == (str(init), tree["init_teacher"])
    assert (tmp_path / "run" / "tokenizer").is_dir()
    whole = weights_at(tmp_path / "run", 4)
    gone = shutil.copytree(init, tmp_path / "gone")
    again = {**tree, "init": str(gone), "out_dir": str(tmp_path / "again")}
    train(again, monkeypatch, tmp_path)
    assert all(weights_at(tmp_path / "again", 4)[name].equal(weight) for name, weight in whole.items())
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-00000004")
    shutil.rmtree(gone)
    train(again, monkeypatch, tmp_path)
    assert all(weights_at(tmp_path / "again", 4)[name].equal(weight) for name, weight in whole.items())
    export(["--run", str(tmp_path / "again"), "--out", str(tmp_path / "student")])
    assert "init: gone" in (tmp_path / "student" / "README.md").read_text(encoding="utf-8")


def test_refusals(
    tree: Tree,
    init: Path,
    tuned: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the key, exit code 2, nothing written."""
    narrow = tmp_path / "narrow"
    model = teacher_model(len(teacher_tokenizer()))
    shape = type(model.config).from_dict({**model.config.to_dict(), "intermediate_size": 48})
    CLIPTextModelWithProjection(shape).save_pretrained(narrow)
    teacher_tokenizer().save_pretrained(narrow)
    other = shutil.copytree(tuned, tmp_path / "other")
    model.get_parameter(f"{TABLE}.weight").data.normal_()
    model.save_pretrained(other)
    bare = shutil.copytree(init, tmp_path / "bare")
    (bare / "README.md").unlink()
    cases: list[tuple[Tree, str]] = [
        (
            {"teacher": str(narrow)},
            "init: text_model.encoder.layers.0.mlp.fc1.weight is [64, 32], the teacher's [48, 32]",
        ),
        (
            {"init_teacher": str(narrow)},
            "init_teacher: text_model.encoder.layers.0.mlp.fc1.weight is [48, 32], the teacher's",
        ),
        ({"init_teacher": str(other)}, f"init_teacher: '{other}' is not the teacher of '{init}'"),
        ({"init_teacher": None}, f"init_teacher: the card of '{init}' names no base model; give the teacher"),
        ({"init": str(bare), "init_teacher": None}, f"init_teacher: '{bare}' has no card that names it"),
        ({"init": None}, "init_teacher: is the teacher of `init`, and there is no init; give both"),
        ({"init": str(tmp_path / "none")}, "init: no folder"),
        ({"student": {"multilingual": {"tokenizer": "t"}}}, "init: the Chinese of a finished student grafts"),
    ]
    for change, said in cases:
        monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", {**tree, **change})])
        with pytest.raises(SystemExit) as stop:
            run_cli(main)
        assert stop.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1, lines
        assert said in lines[0]
    assert not (tmp_path / "run").exists()


def test_the_card_names_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nbase_model: openai/clip\n---\n", encoding="utf-8")
    assert base_model(str(tmp_path), "init_teacher") == "openai/clip"
    assert base_model(f"{tmp_path}/text_encoder_2", "init_teacher") == "openai/clip/text_encoder_2"
    (tmp_path / "README.md").write_text("---\nbase_model: [a/b, c/d]\n---\n", encoding="utf-8")
    with pytest.raises(UserError, match="names no base model"):
        base_model(str(tmp_path), "init_teacher")


def test_each_stage_of_sdxl_takes_its_own_part(tree: Tree) -> None:
    tree |= {
        "init": "me/student",
        "init_teacher": "base",
        "teacher": "anime",
        "stages": {"g": {"init_teacher": "other"}},
    }
    first, second = stage_configs(tree)
    assert (first.init, first.init_teacher) == ("me/student/text_encoder", "base/text_encoder")
    assert (second.init, second.init_teacher) == ("me/student/text_encoder_2", "other")
