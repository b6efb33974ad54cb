"""Both encoders of SDXL in one run: stages, resume, the read-out for the pair, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data.cli import UserError
from data.loader import tokenise
from distill import prepare
from distill.geometry import read_geometry
from distill.losses import Readout
from distill.losses.base import FirstStates, LossInput
from distill.text_tower import EncoderOutput, load_pretrained
from distill.train.main import main
from distill.train.pair import parse_runs, stage_configs
from distill.train.setup import build_setup, prepare_run, validate_losses
from distill.unet_geometry import main as write_unet_geometry
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, weights_at
from tests.distill.tiny_xl import FIRST, SECOND, write_xl


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def geometry(xl: Path) -> Path:
    out = xl.parent / "unet.safetensors"
    write_unet_geometry(["--unet", str(xl), "--out", str(out), "--queries", "6", "--steps", "2"])
    return out


def pair_tree(xl: Path, corpus: Path, out: Path, geometry: Path) -> dict[str, Any]:
    tree = run_options(xl, corpus, out)
    tree["losses"] = {"contrastive": None, "alignment": {}, "kv_metric": {}, "unet_geometry": str(geometry)}
    return {**tree, "stages": {"g": {"losses": {"readout": {}}, "train": {"lr": 1e-3}}}}


def run(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    path = Path(tree["out_dir"]).parent / "pair.yaml"
    path.write_text(yaml.safe_dump(tree))
    monkeypatch.setattr("sys.argv", ["distill", "--config", str(path), *options])
    main()


def test_the_geometry_of_the_pair(xl: Path, geometry: Path) -> None:
    """Widths, the queries of a UNet that was given pooled states and time ids, and each encoder's own metric."""
    found = read_geometry(geometry, torch.device("cpu"))
    assert (found.widths, found.width) == ((FIRST, SECOND), FIRST + SECOND)
    assert found.of_encoder(1).metric.shape == (SECOND, SECOND)
    assert found.of_encoder(0).metric.trace().item() == pytest.approx(FIRST, rel=1e-5)
    h = torch.randn(SECOND)
    parts = [
        (weight[:, FIRST:] @ h).square().sum() / weight[:, FIRST:].square().sum()
        for layer in found.layers
        for weight in (layer.key, layer.value)
    ]
    assert (h @ found.of_encoder(1).metric @ h).item() == pytest.approx(SECOND * float(sum(parts)) / len(parts), 1e-4)


def test_both_stages_by_one_command(
    xl: Path, geometry: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tokenizer's Chinese, padding of each, the read-out in `g` alone; stopped and resumed it ends bit for bit."""
    run(pair_tree(xl, corpus, tmp_path / "run", geometry), monkeypatch)
    tokenizers = {name: load_pretrained_tokenizer(tmp_path / "run" / name) for name in ("l", "g")}
    assert tokenizers["l"].get_vocab() == tokenizers["g"].get_vocab()
    assert (tokenizers["l"].pad_token, tokenizers["g"].pad_token) == ("<|endoftext|>", "!")
    lines = [(tmp_path / "run" / name / "metrics.jsonl").read_text() for name in ("l", "g")]
    assert ["readout_zh" in text for text in lines] == [False, True]
    half = pair_tree(xl, corpus, tmp_path / "half", geometry)
    cut = {**half, "train": {**half["train"], "save_every": 2}}
    cut["stages"]["g"]["train"]["save_every"] = 2
    stop_after(monkeypatch, stage="g", step=4)
    run(cut, monkeypatch)
    assert not (tmp_path / "half" / "g" / "checkpoints" / "step-00000006").exists()
    monkeypatch.undo()
    run(cut, monkeypatch)
    for name in ("l", "g"):
        first, second = (weights_at(tmp_path / folder / name, 6) for folder in ("run", "half"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_both_stages_are_prepared_ahead(
    xl: Path, geometry: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that trains nothing: tokenizers and token stores of both; the training tokenises nothing."""
    tree = pair_tree(xl, corpus, tmp_path / "run", geometry)
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(tree))
    prepare.main(["--config", str(tmp_path / "pair.yaml"), "--processes", "1"])
    stores = {name: [*(tmp_path / "run" / name / "tokens").iterdir()] for name in ("l", "g")}
    assert [len(folders) for folders in stores.values()] == [1, 1]
    assert not [*(tmp_path / "run").glob("*/checkpoints")]
    monkeypatch.setattr(tokenise, "_encode", None)  # would fail if anything were tokenised again
    run(tree, monkeypatch, "--train.steps", "2")
    assert [path.parts[-3] for path in sorted((tmp_path / "run").glob("*/checkpoints/*"))] == ["g", "l"]


def test_two_processes_are_one(
    xl: Path, geometry: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stages, the first student beside the second on each process: the optimizer's moments after a step.

    Weights and later steps say less: where a gradient is nothing but rounding, Adam makes a whole step of its sign.
    """
    trees = {name: pair_tree(xl, corpus, tmp_path / name, geometry) for name in ("one", "two")}
    for tree in trees.values():
        tree["train"] |= {"steps": 1, "save_every": 1}
    run(trees["one"], monkeypatch)
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(trees["two"]))

    def work(rank: int) -> int:
        main()
        return rank

    two_processes(work, tmp_path)
    for stage in ("l", "g"):
        path = f"{stage}/checkpoints/step-00000001/optimizer.safetensors"
        one, two = (load_file(tmp_path / name / path) for name in trees)
        assert one.keys() == two.keys()
        for key, moment in one.items():
            if "k_proj.bias" not in key:  # has no gradient but rounding: softmax does not see it
                torch.testing.assert_close(two[key], moment, atol=1e-5 * float(moment.abs().max()), rtol=1e-4)


def stop_after(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """As a SIGTERM during a step of a stage does."""
    import os
    import signal

    from distill.train.trainer import Trainer

    own = Trainer.step

    def stopping(self: Trainer, at: int, loader: Any) -> Any:  # noqa: ANN401
        if at == step - 1 and self._checkpoints.parent.name == stage:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(self, at, loader)

    monkeypatch.setattr(Trainer, "step", stopping)


def load_pretrained_tokenizer(run_folder: Path) -> Any:  # noqa: ANN401
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(run_folder / "tokenizer")


def output(states: torch.Tensor) -> EncoderOutput:
    return EncoderOutput(states, states[:, 0], torch.ones(states.shape[:2], dtype=torch.bool))


def test_the_readout_of_the_pair_by_hand(geometry: Path) -> None:
    """It is that of the states side by side, and its gradient flows into the second encoder alone."""
    found = read_geometry(geometry, torch.device("cpu"))
    torch.manual_seed(0)
    first = torch.randn(2, 5, FIRST, requires_grad=True)
    second = torch.randn(2, 5, SECOND, requires_grad=True)
    target, target_2 = torch.randn(2, 4, FIRST), torch.randn(2, 4, SECOND)
    step = LossInput(
        output(second), output(target_2), output(second[:1]), output(target_2[:1]), padded_to_max=True, geometry=found,
        first=FirstStates(first.detach(), target, first[:1].detach(), target[:1]),
    )  # fmt: skip
    together = LossInput(
        output(torch.cat([first, second], 2)), output(torch.cat([target, target_2], 2)), output(second[:1]),
        output(target_2[:1]), padded_to_max=True, geometry=found,
    )  # fmt: skip
    ours, whole = Readout().terms(step)["readout_zh"], Readout().terms(together)["readout_zh"]
    torch.testing.assert_close(ours, whole)
    ours.backward()  # type: ignore[no-untyped-call]
    assert first.grad is None
    assert second.grad is not None


def test_the_first_encoder_reads_its_own_padding(
    xl: Path, geometry: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its states are those of its own tokenizer, padded with end-of-text, also where a text has a "!"."""
    tree = pair_tree(xl, corpus, tmp_path / "run", geometry)
    monkeypatch.setattr("sys.argv", ["distill"])
    run(tree, monkeypatch, "--train.steps", "2", "--train.full_share", "1")
    second = parse_runs()[1]
    from distill.train.main import make_accelerator

    prepared = prepare_run(second, 1)
    setup = build_setup(second, make_accelerator(second), prepared.store, prepared.pretrained)
    batch = setup.loader[0]
    constants = setup.task._constants
    assert constants.first is not None
    teacher = load_pretrained(f"{xl}/text_encoder", "penultimate")
    text = "red! the cat!"
    ids = prepared.pretrained.tokenizer(text, padding="max_length", max_length=77).input_ids
    own = teacher.tokenizer(text, padding="max_length", max_length=77).input_ids
    assert constants.first._teacher_ids(torch.tensor([ids])).tolist() == [own]
    states = constants.first.states(batch)
    assert states.chinese.shape == (8, batch.student_zh_ids.shape[1], FIRST)
    assert states.english_target.shape[2] == FIRST
    assert len(states.english) == len(batch.student_en_ids)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_length_of_the_states_is_taught(geometry: Path, scale: float) -> None:
    """States before the last layer have no final norm: read-out and kv_metric see a wrong length."""
    from distill.losses import KvMetric

    found = read_geometry(geometry, torch.device("cpu"))
    torch.manual_seed(0)
    states, first = torch.randn(2, 6, SECOND), torch.randn(2, 6, FIRST)

    def terms(factor: float) -> dict[str, torch.Tensor]:
        step = LossInput(
            output(states * factor), output(states), output(states * factor), output(states), padded_to_max=True,
            geometry=found.of_encoder(1), first=FirstStates(first, first, first, first),
        )  # fmt: skip
        return {**Readout().terms(step), **KvMetric().terms(step)}

    assert all(term.item() < 1e-6 for term in terms(1.0).values())
    assert all(term.item() > 0.01 for term in terms(scale).values())


def test_refusals(xl: Path, geometry: Path, corpus: Path, tmp_path: Path) -> None:
    tree = pair_tree(xl, corpus, tmp_path / "run", geometry)
    first, second = stage_configs(tree)
    assert first.teacher.endswith("xl/text_encoder")
    assert second.teacher.endswith("xl/text_encoder_2")
    assert second.first_encoder == tmp_path / "run" / "l"
    assert (first.states, second.padding) == ("penultimate", "!")
    tree["losses"]["readout"] = {}
    with pytest.raises(UserError, match=r"losses\.readout: the UNet of .* first_encoder, or use losses\.alignment"):
        validate_losses(stage_configs(tree)[0], FIRST)
    with pytest.raises(UserError, match=f"reads states of width {SECOND}, the teacher's have 99"):
        validate_losses(second, 99)
    with pytest.raises(UserError, match=r"first_encoder: .*holds no run"):
        prepare_run(second, 1)
    for wrong, said in (({"x": {}}, "stages: gives keys"), ({"l": 3}, r"stages\.l: 3 is no mapping")):
        with pytest.raises(UserError, match=said):
            stage_configs({**tree, "stages": wrong})
