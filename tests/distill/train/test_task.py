"""A step in chunks: the gradients and the numbers of the whole, with every loss that looks at the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data.cli import UserError
from distill.student.base import ClipStudent
from distill.text_tower import encode_ids, load_tower
from distill.train.config import parse_config
from distill.train.main import make_accelerator
from distill.train.setup import build_setup, prepare_run
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, write_config
from tests.distill.train.test_training import _records, _step_gradients, _train, _weights


def _options(teacher: Path, corpus: Path, out: Path, tokens: int | None) -> dict[str, Any]:
    tree = run_options(teacher, corpus, out)
    tree["train"] |= {"tokens_at_once": tokens, "clip_skip": 0.5}
    tree["losses"] = {
        "pooled": {"mse": 1.0}, "affinity": {}, "similarity": {"anchors": 20}, "alignment": {}, "empty_prompt": {},
        "translation": {"en_from_en": 0.1},
    }  # fmt: skip
    return tree


def _same(one: Path, other: Path) -> None:
    ours, theirs = _weights(one, 6), _weights(other, 6)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)
    for a, b in zip(_records(one), _records(other), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_chunks_are_the_whole(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All token positions at once, at most 90, and on two processes at most 40 each; a row is never cut."""
    _train(write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "whole", None)), monkeypatch)
    with_gradient: list[torch.Tensor] = []
    forward = ClipStudent.forward

    def counted(self: ClipStudent, ids: torch.Tensor, **options: Any) -> Any:  # noqa: ANN401
        if torch.is_grad_enabled():
            with_gradient.append(ids)
        return forward(self, ids, **options)

    monkeypatch.setattr(ClipStudent, "forward", counted)
    _train(write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "chunks", 90)), monkeypatch)
    assert all(len(ids) == 1 or ids.numel() <= 90 for ids in with_gradient)
    assert len(with_gradient) > 6 * 3
    _same(tmp_path / "chunks", tmp_path / "whole")
    arguments = write_config(tmp_path / "c.yaml", _options(teacher, corpus, tmp_path / "two", 40))
    results: list[Any] = two_processes(_step_gradients(arguments), tmp_path)
    assert [result["processes"].tolist() for result in results] == [[2], [2]]
    _same(tmp_path / "two", tmp_path / "whole")


def test_clip_skip_looks_at_the_layer_before(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """On its share of steps, drawn by the step's number, states are those before the last layer, normed."""
    tree = _options(teacher, corpus, tmp_path / "run", None)
    tree["train"] |= {"english_every": 1, "full_share": 1}
    run = parse_config(write_config(tmp_path / "c.yaml", tree))
    prepared = prepare_run(run, 1)
    setup = build_setup(run, make_accelerator(run), prepared.store, prepared.pretrained)
    layers = [setup.loader[step].state_layer for step in range(6)]
    assert layers == [setup.loader[step].state_layer for step in range(6)]
    assert {*layers} == {None, "penultimate_normed"}
    tower, task = load_tower(str(teacher), "t"), setup.task
    for step in (layers.index(None), layers.index("penultimate_normed")):
        batch, layer = setup.loader[step], layers[step] or "last"
        pairs, english = setup.teacher.targets(batch).pairs, task.encoder(batch, False)(batch.student_en_ids)
        for found, ids in ((pairs, batch.teacher_ids), (english, batch.student_en_ids)):
            expected = encode_ids(tower, ids, layer)
            torch.testing.assert_close(found.hidden_states, expected.hidden_states, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-5, rtol=1e-4)
        terms = task(batch, setup.teacher.targets(batch))
        assert terms["empty_prompt"].item() < 1e-6, "the student starts as the teacher, in both layers"


@pytest.mark.parametrize("change", [{"states": "penultimate_normed"}, {"student": {"xlmr": {"model": "e"}}}])
def test_clip_skip_is_for_sd1(change: dict[str, Any], teacher: Path, corpus: Path, tmp_path: Path) -> None:
    tree = {**_options(teacher, corpus, tmp_path / "run", None), **change}
    with pytest.raises(UserError, match=r"train\.clip_skip: is for CLIP students of Stable Diffusion 1\.x"):
        parse_config(write_config(tmp_path / "c.yaml", tree))
