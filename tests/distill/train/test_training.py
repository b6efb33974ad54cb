"""The loop through its own main: exact resume, any number of processes, divergence, signals, what it writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from data.cli import UserError, run_cli
from distill import losses, text_tower
from distill.train import checkpoint, main, setup, trainer
from distill.train.config import read_stored_config
from tests.conftest import REPOSITORY
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, write_config

Tree = dict[str, Any]


def _train(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(sys, "argv", ["distill.py", *arguments])
    main.main()


def _weights(run: Path, step: int, name: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors")


def _assert_same_training(run: Path, other: Path) -> None:
    """After six steps, but for rounding: the moments to 5e-4 of their largest, the weights to a tenth of a step.

    Where a gradient is little more than rounding, AdamW makes a whole step of its sign: weights say less than moments.
    """
    ours, theirs = _weights(run, 6, "optimizer"), _weights(other, 6, "optimizer")
    assert ours.keys() == theirs.keys()
    for name, moment in theirs.items():
        if "k_proj.bias" not in name:  # has no gradient but rounding: softmax does not see it
            torch.testing.assert_close(ours[name], moment, atol=5e-4 * float(moment.abs().max()), rtol=0)
    ours, theirs = _weights(run, 6), _weights(other, 6)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=1e-3)


def _records(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "pairs_per_second"} for line in lines]


@pytest.fixture(scope="module")
def whole(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps in one go."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        torch.set_num_threads(1)
        tree = run_options(teacher, corpus, folder / "run")
        tree["train"]["trackers"] = ["tensorboard"]
        _train(write_config(folder / "config.yaml", tree), patch)
    return folder / "run"


def _same_run(one: Path, other: Path) -> None:
    for name in ("weights", "optimizer"):
        ours, theirs = _weights(one, 6, name), _weights(other, 6, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert _records(one) == _records(other)


def test_what_a_run_writes(whole: Path) -> None:
    """Six logged steps, two evaluations, two checkpoints, event files; nothing pickled."""
    records = _records(whole)
    logged = [line for line in records if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4, 5, 6]
    assert [line["pairs"] for line in logged] == [8, 16, 24, 32, 40, 48]
    terms = {"pooled_zh", "pooled_en", "hidden_en", "contrastive"}
    for line in logged:
        assert line.keys() == {"step", "pairs", "loss", "lr", "grad_norm", *terms}
        assert line["loss"] == pytest.approx(sum(line[term] for term in terms), abs=1e-5)
        assert line["grad_norm"] > 0
    assert logged[0]["pooled_en"] == pytest.approx(0, abs=1e-6), "English starts as the teacher's"
    assert logged[1]["lr"] == pytest.approx(4e-4 * (0.01 + 0.99 * 0.5 * (1 + 3**0.5 / 2)))
    evaluated = [line for line in records if "valid/caption/cosine_zh" in line]
    assert [line["step"] for line in evaluated] == [3, 6]
    assert evaluated[0].keys() == {
        "step", "pairs", *(f"valid/caption/{name}" for name in ("cosine_zh", "cosine_en", "zh2en", "en2zh"))
    }  # fmt: skip
    assert checkpoint.saved_steps(whole / "checkpoints") == [3, 6]
    assert list(whole.rglob("events.out.tfevents.*")), "the tracker wrote"
    kinds = {path.suffix for path in whole.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert kinds == {".yml", ".yaml", ".json", ".jsonl", ".safetensors", ".arrow"}


def test_training_teaches_chinese(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps from first rows that are near already."""
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["train"] |= {"steps": 20, "eval_every": 20, "save_every": 20}
    _train(write_config(tmp_path / "config.yaml", tree), monkeypatch)
    logged = [line["pooled_zh"] for line in _records(tmp_path / "run") if "loss" in line]
    assert logged[-1] < logged[0]


def test_chinese_is_near_its_english_from_the_first_step(whole: Path) -> None:
    """First rows are those of the translations: six steps cannot show more than that it stays so."""
    distances = [line["pooled_zh"] for line in _records(whole) if "loss" in line]
    assert max(distances) < 0.2


def test_three_steps_and_three_more_are_six(
    whole: Path, teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: weights, moments, metrics; after a stop between two checkpoints as well."""
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    with monkeypatch.context() as patch:
        step = trainer.Trainer.step

        def killed(self: trainer.Trainer, number: int, batches: Any) -> Any:  # noqa: ANN401
            if number == 4:
                raise KeyboardInterrupt
            return step(self, number, batches)

        patch.setattr(trainer.Trainer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            _train(arguments, monkeypatch)
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [3]
    assert [line["step"] for line in _records(tmp_path / "run")][-1] == 4
    _train(arguments, monkeypatch)
    _same_run(tmp_path / "run", whole)
    _train(arguments, monkeypatch)  # a run that is done stays as it is
    _same_run(tmp_path / "run", whole)


def test_sigterm_saves_and_the_run_goes_on(
    whole: Path,
    teacher: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    with monkeypatch.context() as patch:
        step = trainer.Trainer.step

        def asked(self: trainer.Trainer, number: int, batches: Any) -> Any:  # noqa: ANN401
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, number, batches)

        patch.setattr(trainer.Trainer, "step", asked)
        _train(arguments, monkeypatch)  # returns: exit code 0
    assert "stopped and saved; the same command goes on from step 2\n" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [2]
    _train(arguments, monkeypatch)
    _same_run(tmp_path / "run", whole)


def _spoil(bad: set[int], patch: pytest.MonkeyPatch) -> None:
    """Makes the loss of the steps `bad`, counted from 0, infinite on every rank that computes it."""
    step, terms = trainer.Trainer.step, losses.Pooled.terms

    def spoiled(self: trainer.Trainer, number: int, batches: Any) -> Any:  # noqa: ANN401
        factor = float("inf") if number in bad else 1
        patch.setattr(
            losses.Pooled, "terms", lambda loss, inputs: {n: t * factor for n, t in terms(loss, inputs).items()}
        )
        return step(self, number, batches)

    patch.setattr(trainer.Trainer, "step", spoiled)


def test_a_gradient_that_is_not_finite_skips_its_step(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one process and on two: the weights and moments after it are those before it, and it is counted."""
    for out in ("one", "two"):
        tree = run_options(teacher, corpus, tmp_path / out)
        tree["train"] |= {"steps": 3, "save_every": 1, "keep": 3}
        arguments = write_config(tmp_path / "c.yaml", tree)
        with monkeypatch.context() as patch:
            _spoil({1}, patch)
            _train(arguments, patch) if out == "one" else two_processes(_step_gradients(arguments), tmp_path)
        for name in ("weights", "optimizer"):
            first, second, third = (_weights(tmp_path / out, step, name) for step in (1, 2, 3))
            assert all(first[key].equal(second[key]) for key in first)
            assert any(not third[key].equal(second[key]) for key in first)
        logged = {line["step"]: line for line in _records(tmp_path / out) if "lr" in line}
        assert [line.get("skipped") for line in logged.values()] == [None, 1, 1]
        assert "pooled_zh" not in logged[2]
        assert logged[3]["loss"] > 0


def test_five_gradients_in_a_row_that_are_not_finite_end_the_run(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["train"] |= {"steps": 20, "save_every": 4}
    _spoil({1, *range(3, 9)}, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", tree)])
    with pytest.raises(SystemExit) as stop:
        run_cli(main.main)
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    advice = "5 gradients in a row were not finite; lower train.lr, or train.precision: fp32"
    assert errors == [f"error: step 8: {advice}"]
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [4]


@pytest.mark.parametrize(("number", "steps"), [(signal.SIGUSR1, [2, 3, 6]), (signal.SIGINT, [2])])
def test_signals_save_within_a_step_on_two_processes(
    number: signal.Signals, steps: list[int], teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """The signal reaches one process alone, between two logged steps."""
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["train"] |= {"log_every": 6, "keep": 9}
    arguments = write_config(tmp_path / "c.yaml", tree)
    step = trainer.Trainer.step

    def asked(self: trainer.Trainer, at: int, readings: Any) -> Any:  # noqa: ANN401
        if at == 1 and not self._accelerator.is_main_process:
            os.kill(os.getpid(), number)
        return step(self, at, readings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", asked)
        two_processes(_step_gradients(arguments), tmp_path)
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == steps


def test_a_second_interrupt_ends_at_once() -> None:
    with trainer.catch_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received.stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_accelerates_environment_does_not_divide_the_loss(
    whole: Path, teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    _train(write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run")), monkeypatch)
    _same_run(tmp_path / "run", whole)


def test_auto_precision_is_the_devices_and_stays_with_the_run(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that started on a CPU with bf16 goes on in bf16 on one without; a new run there is fp32."""
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["train"] |= {"precision": "auto", "steps": 2, "save_every": 1}
    arguments = write_config(tmp_path / "c.yaml", tree)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    _train(arguments, monkeypatch)
    assert "training on 1 x cpu in bf16" in capsys.readouterr().out
    whole, last = _weights(tmp_path / "run", 2), tmp_path / "run" / "checkpoints" / "step-00000002"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    _train(arguments, monkeypatch)
    assert all(weight.equal(whole[name]) for name, weight in _weights(tmp_path / "run", 2).items())
    tree["out_dir"] = str(tmp_path / "fresh")
    _train(write_config(tmp_path / "c.yaml", tree), monkeypatch)
    assert "training on 1 x cpu in fp32" in capsys.readouterr().out
    assert read_stored_config(tmp_path / "fresh" / "config.yaml").train.precision == "fp32"


def _step_gradients(arguments: list[str]) -> Callable[[int], dict[str, torch.Tensor]]:
    """Trains a run and returns its last weights and the number of its processes."""

    def work(rank: int) -> dict[str, torch.Tensor]:
        counted: list[int] = []
        patch = pytest.MonkeyPatch()
        parts = setup.build_setup

        def count(config: Any, accelerator: Any, *rest: Any) -> Any:  # noqa: ANN401
            counted.append(accelerator.num_processes)
            return parts(config, accelerator, *rest)

        patch.setattr(main, "build_setup", count)
        patch.setattr(sys, "argv", ["distill.py", *arguments])
        main.main()
        return {"processes": torch.tensor(counted)}

    return work


def test_two_processes_of_half_a_batch_are_one_of_the_whole(
    whole: Path, teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contrastive on, tight and full steps, gradients in many buckets: weights after six steps, every logged number."""
    monkeypatch.setattr("distill.distributed._BUCKET", 1000)
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    results: list[Any] = two_processes(_step_gradients(arguments), tmp_path)
    assert [result["processes"].tolist() for result in results] == [[2], [2]]
    _assert_same_training(tmp_path / "run", whole)
    for one, two in zip(_records(tmp_path / "run"), _records(whole), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)


def test_a_run_goes_on_with_another_number_of_processes(
    whole: Path, teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps on two processes, stopped by a signal, four on one: the data and the numbers of one run."""
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    step = trainer.Trainer.step

    def asked(self: trainer.Trainer, number: int, readings: Any) -> Any:  # noqa: ANN401
        if number == 1 and self._accelerator.is_main_process:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, readings)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", asked)
        two_processes(_step_gradients(arguments), tmp_path)
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [2]
    _train(arguments, monkeypatch)
    _assert_same_training(tmp_path / "run", whole)
    for one, two in zip(_records(tmp_path / "run"), _records(whole), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)


def test_the_teacher_is_read_once(teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh run makes teacher and student of one reading of the file."""
    read: list[str] = []
    load_tower = text_tower.load_tower

    def counted(name: str, key: str) -> Any:  # noqa: ANN401
        read.append(name)
        return load_tower(name, key)

    monkeypatch.setattr("distill.text_tower.load_tower", counted)
    tree = run_options(teacher, corpus, tmp_path / "run")
    tree["train"]["steps"] = 1
    _train(write_config(tmp_path / "c.yaml", tree), monkeypatch)
    assert read == [str(teacher)]


def test_the_student_of_a_run_folder(whole: Path, teacher: Path) -> None:
    """Newest or named; the frozen rows come from the teacher again."""
    newest, third = checkpoint.open_run(whole, None), checkpoint.open_run(whole, 3)
    model = newest.student.to_clip()
    table = model.text_model.embeddings.token_embedding.weight
    assert len(table) == len(newest.tokenizer)
    rows = _weights(whole, 6)["text.text_model.embeddings.token_embedding.new"]
    cat = newest.tokenizer.get_vocab()["çĮ«"]
    assert (rows == table[cat]).all(dim=1).any()
    early, late = (run.student.to_clip().text_model.final_layer_norm.weight for run in (third, newest))
    assert not torch.equal(early, late)
    original = text_tower.load_tower(str(teacher), "t").text_projection.weight
    assert torch.equal(model.text_projection.weight, original), "frozen"
    with pytest.raises(UserError, match=r"--step 5: .* has checkpoints 3, 6"):
        checkpoint.open_run(whole, 5)
    with pytest.raises(UserError, match=r"no config\.yaml"):
        checkpoint.open_run(whole / "tokenizer", None)


def test_a_run_of_an_earlier_release_is_read(whole: Path, tmp_path: Path) -> None:
    """Its configuration has a key that is gone, and its checkpoint the projection, which was trained then."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("  tokens_at_once: null\n", "  accumulate: 4\n"))
    assert read_stored_config(run / "config.yaml") == read_stored_config(whole / "config.yaml")
    (run / "config.yaml").write_text(config.replace("    max_epochs: 10.0\n", ""))
    assert read_stored_config(run / "config.yaml").data.mixture.max_epochs is None, "as it was drawn then"
    projection = torch.arange(16 * 32.0).reshape(16, 32)
    path = run / "checkpoints" / "step-00000006" / "weights.safetensors"
    save_file({**load_file(path), "text.text_projection.weight": projection}, path)
    assert torch.equal(checkpoint.open_run(run, None).student.to_clip().text_projection.weight, projection)


def test_freeze_transformer_leaves_english_bit_exact(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: Tree = run_options(teacher, corpus, tmp_path / "run")
    tree["student"]["extended"]["freeze"] = "transformer"
    _train(write_config(tmp_path / "c.yaml", tree), monkeypatch)
    assert all(line["pooled_en"] == pytest.approx(0, abs=1e-6) for line in _records(tmp_path / "run") if "loss" in line)
    assert _weights(tmp_path / "run", 6).keys() == {"text.text_model.embeddings.token_embedding.new"}
    run = checkpoint.open_run(tmp_path / "run", None)
    trained = run.student.to_clip()
    original = text_tower.load_tower(str(teacher), "teacher")
    for name, weight in original.state_dict().items():
        if "token_embedding" not in name:
            assert torch.equal(trained.state_dict()[name], weight), name
    ids = run.tokenizer(["a red cat"], return_tensors="pt")["input_ids"]
    assert torch.equal(trained(input_ids=ids).text_embeds, original(input_ids=ids).text_embeds)


def _launch(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "--main_process_port", "0", str(REPOSITORY / "scripts" / "distill.py"), *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_accelerate_launch_runs_two_processes(whole: Path, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """The real command line, with an override; the metrics are those of one process, and both processes were there."""
    arguments = write_config(tmp_path / "c.yaml", run_options(teacher, corpus, tmp_path / "run"))
    process = _launch(tmp_path, [*arguments, "--train.keep", "1"])
    workers: set[str] = set()
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            workers |= set(children.read_text().split())
        except OSError:
            break
        time.sleep(0.1)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(workers) >= 2
    assert "step 6 of 6, 48 pairs" in out
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [6]
    for one, two in zip(_records(tmp_path / "run"), _records(whole), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
