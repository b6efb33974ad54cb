"""What a user can get wrong before a step is taken: one line that names the key and the fix, and exit code 2."""

import errno
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from data.cli import run_cli
from data.files import file_lock
from distill.train import checkpoint, main, setup, trainer
from distill.train.config import parse_config
from tests.conftest import REPOSITORY
from tests.distill.forked import two_processes
from tests.distill.tiny_clip import run_options, teacher_model, teacher_tokenizer, write_config, write_corpus

Refused = Callable[[list[str]], str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command, asserts the exit code, and returns its one line."""

    def run(arguments: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["distill.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_cli(main.main)
        assert stop.value.code == 2
        lines = [line for line in capfd.readouterr().err.splitlines() if line and not line.startswith("tokenise")]
        assert len(lines) == 1, lines
        return lines[0]

    return run


@pytest.fixture
def tree(teacher: Path, corpus: Path, tmp_path: Path) -> dict[str, Any]:
    return run_options(teacher, corpus, tmp_path / "run")


def _changed(tree: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {**tree, head: _changed(tree.get(head, {}), rest, value) if rest else value}


KEYS: list[tuple[str, object, str]] = [
    (
        "trian",
        {"lr": 1},
        "trian: no such key; there are teacher, data, out_dir, states, padding, first_encoder, init, "
        "init_teacher, student, losses, train",
    ),
    ("train.learning_rate", 1, "train.learning_rate: no such key; there are steps, batch_size"),
    ("data.mixture.stages", [{"from": 3}], "data.mixture.stages.0.from: no such key; there are from_step, "),
    ("losses.pooled", {"chinesse": 1}, "losses.pooled.chinesse: no such key; there are chinese, "),
    ("student.xtended", {}, "student.xtended: no such key; there are extended"),
    ("train", 3, "train: 3 is no mapping; its keys are steps,"),
    ("losses.pooled", 3, "losses.pooled: 3 is no mapping; its keys are chinese,"),
    ("train.lr", "fast", "train.lr: must be a number, not 'fast'"),
    ("train.steps", 1.5, "train.steps: must be a whole number, not 1.5"),
    ("losses.hidden", {"l1": "much"}, "losses.hidden.l1: must be a number, not 'much'"),
    ("data.mixture", {"weights": 3}, "data.mixture.weights: must be a mapping or null, not 3"),
    ("train.precision", "fp16", "train.precision: 'fp16' is none of 'auto', 'bf16', 'fp32'"),
    ("student.extended.freeze", "all", "student.extended.freeze: 'all' is none of 'none', 'embeddings', 'transformer'"),
    ("train.trackers", ["paper"], "train.trackers.0: 'paper' is none of 'tensorboard', 'trackio', 'wandb'"),
    ("losses", {"pooled": None, "hidden": None, "contrastive": None}, "losses: every loss is null; give at least one"),
    ("losses.contrastive", {"temperature": 0}, "losses.contrastive.temperature: 0.0 is not above 0"),
    ("train.steps", 0, "train.steps: 0 is below 1"),
    ("train.seed", -1, "train.seed: -1 is below 0"),
    ("train.full_share", 2, "train.full_share: 2.0 is not between 0 and 1"),
    ("data.window", 0, "data.window: 0 is below 1"),
    ("data.mixture", {"temperature": 0}, "data.mixture.temperature: 0.0 is not above 0"),
    ("data.mixture", {"weights": {"poetry": 1}}, "data.mixture.weights.poetry: the corpus has no such domain; it has"),
    ("student.extended.vocabulary.words", -1, "student.extended.vocabulary: words must be >= 0"),
    ("teacher", "./nowhere", "teacher: no folder './nowhere' (looked in "),
    ("data.corpus", "/nowhere", "data.corpus: /nowhere is no corpus (no train/*.parquet there); build one first"),
]


@pytest.mark.parametrize(("key", "value", "message"), KEYS, ids=[f"{key}={value}" for key, value, _ in KEYS])
def test_a_wrong_value_is_named(
    key: str, value: object, message: str, tree: dict[str, Any], refused: Refused, tmp_path: Path
) -> None:
    assert refused(write_config(tmp_path / "c.yaml", _changed(tree, key, value))).startswith(f"error: {message}")


def test_the_command_line_itself(tree: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", tree)
    assert "--config FILE.yaml" in refused([])
    assert "no such file 'absent.yaml'" in refused(["--config", "absent.yaml"])
    assert "train.rate: no such key; there are steps, batch_size" in refused([*config, "--train.rate", "3"])
    assert refused([*config, "--train.rate"]) == "error: --train.rate: no value; write --train.rate VALUE"
    assert refused([*config, "train.lr=3"]).startswith("error: train.lr=3: not an option; write --KEY VALUE")
    assert "train.lr: must be a number, not 'fast'" in refused([*config, "--train.lr", "fast"])
    assert "losses.pooled.nope: no such key" in refused([*config, "--losses.pooled.nope", "1"])
    (tmp_path / "c.yaml").write_text("teacher: [unclosed")
    assert "c.yaml is not readable as YAML" in refused(config)
    (tmp_path / "c.yaml").write_text("")
    assert "c.yaml holds no keys" in refused(config)
    (tmp_path / "c.yaml").write_text("teacher: x\nout_dir: y\n")
    assert refused(config).startswith("error: data.corpus: missing; write it into the file")


def test_1e_4_in_yaml_is_a_number(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """PyYAML reads it as a string."""
    (tmp_path / "c.yaml").write_text(f"teacher: {teacher}\nout_dir: r\ndata: {{corpus: {corpus}}}\ntrain: {{lr: 1e-4}}")
    assert parse_config(["--config", str(tmp_path / "c.yaml")]).train.lr == 1e-4


def _without_tokenizer(folder: Path) -> None:
    teacher_model(522).save_pretrained(folder)


def _foreign_tokenizer(folder: Path) -> None:
    _without_tokenizer(folder)
    teacher_tokenizer().save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")


def _tokenizer_without_words(folder: Path) -> None:
    _without_tokenizer(folder)
    teacher_tokenizer().save_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


def _pickle_only(folder: Path) -> None:
    teacher_tokenizer().save_pretrained(folder)
    model = teacher_model(522)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _not_a_model(folder: Path) -> None:
    teacher_tokenizer().save_pretrained(folder)


def _cut_weights(folder: Path) -> None:
    teacher_tokenizer().save_pretrained(folder)
    teacher_model(522).save_pretrained(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_without_tokenizer, "holds no tokenizer"),
        (_foreign_tokenizer, "holds no tokenizer ('added_tokens')"),
        (_tokenizer_without_words, "holds no words of a tokenizer: tokenizer.json or vocab.json is missing"),
        (_pickle_only, "holds no CLIP text tower in safetensors"),
        (_not_a_model, "holds no CLIP text tower in safetensors"),
        (_cut_weights, "holds no CLIP text tower in safetensors"),
    ],
)
def test_a_teacher_that_is_none(
    write: Callable[[Path], None], message: str, tree: dict[str, Any], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "teacher").mkdir()
    write(tmp_path / "teacher")
    line = refused(write_config(tmp_path / "c.yaml", _changed(tree, "teacher", str(tmp_path / "teacher"))))
    assert line.startswith("error: teacher: ")
    assert str(tmp_path / "teacher") in line
    assert message in line
    assert not (tmp_path / "run").exists(), "nothing was written"


def _empty(folder: Path) -> None:
    for path in folder.glob("train/*"):
        path.unlink()


def _no_rows(folder: Path) -> None:
    for path in folder.glob("train/*"):
        pq.write_table(pq.read_table(path).slice(0, 0), path)


def _wrong_column(folder: Path) -> None:
    path = folder / "train" / "part-00001.parquet"
    pq.write_table(pa.table({"en": ["a"], "chinese": ["一"]}), path)


def _noise(folder: Path) -> None:
    (folder / "valid" / "part-00000.parquet").write_bytes(b"PAR1 and nothing more")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty, "is no corpus (no train/*.parquet there); build one first: python -m data.build"),
        (_no_rows, "has no training rows; its report.json says why"),
        (_wrong_column, "part-00001.parquet: no column 'zh'; it has en, chinese"),
        (_noise, "valid/part-00000.parquet: not a readable Parquet file"),
    ],
)
def test_a_corpus_that_is_none(
    spoil: Callable[[Path], None], message: str, tree: dict[str, Any], refused: Refused, tmp_path: Path
) -> None:
    spoil(write_corpus(tmp_path / "corpus"))
    assert message in refused(
        write_config(tmp_path / "c.yaml", _changed(tree, "data.corpus", str(tmp_path / "corpus")))
    )
    assert not (tmp_path / "run").exists(), "nothing was written"


def test_a_folder_of_something_else_is_left_alone(tree: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert "holds other things and no config.yaml; name a new folder" in refused(
        write_config(tmp_path / "c.yaml", tree)
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_batches_that_do_not_divide_among_processes(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = setup.prepare_run
    monkeypatch.setattr(main, "prepare_run", lambda resolved, processes: whole(resolved, 3))
    line = refused(write_config(tmp_path / "c.yaml", tree))
    assert line == "error: train.batch_size: 8 pairs do not divide among 3 processes"


def test_english_that_does_not_divide_among_processes(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = setup.prepare_run
    monkeypatch.setattr(main, "prepare_run", lambda resolved, processes: whole(resolved, 4))
    line = refused(write_config(tmp_path / "c.yaml", _changed(tree, "train.english_every", 4)))
    assert line.startswith("error: train.english_every: 2 pairs a process are no multiple of 4")


def test_a_folder_in_which_another_process_trains(tree: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    with file_lock(tmp_path / "run", "busy"):
        line = refused(write_config(tmp_path / "c.yaml", tree))
    assert line.startswith(f"error: out_dir: another process trains in {tmp_path / 'run'}")


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with file_lock(tmp_path / "run", "busy"):
        line = capsys.readouterr().err
    assert line.startswith(
        f"warning: {tmp_path / 'run'} is not locked, its file system has no locks (No locks available)"
    )


def test_a_folder_below_a_file(tree: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused([*write_config(tmp_path / "c.yaml", tree), "--out_dir", str(tmp_path / "file" / "run")])
    assert line.startswith(f"error: {tmp_path / 'file'}: ")


def test_a_tracker_that_is_not_installed(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate would leave it out without a word."""
    monkeypatch.setattr(main, "find_spec", lambda name: None)
    line = refused(write_config(tmp_path / "c.yaml", _changed(tree, "train.trackers", ["wandb"])))
    assert line == "error: train.trackers: wandb is not installed; pip install wandb, or leave it out"


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["distill.py", *arguments])
    main.main()


def test_the_folder_of_another_run(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: object
) -> None:
    """Once something is trained: whatever has a say in the weights is the same, the rest may change."""
    tree = _changed(_changed(tree, "train.steps", 2), "data.mixture.weights", {"caption": 3, "dictionary": 1})
    config = write_config(tmp_path / "c.yaml", tree)
    _run(config, monkeypatch)
    capfd.readouterr()  # type: ignore[attr-defined]
    end = f"in {tmp_path}/run/config.yaml; give the same, or another --out_dir"
    assert refused([*config, "--train.lr", "1"]) == f"error: train.lr: 1.0 here, 0.0004 {end}"
    for key, value, message in (
        ("losses.contrastive", None, "losses.contrastive: None here, 'absent' "),
        ("data.mixture.weights", {"caption": 3}, "data.mixture.weights.dictionary: 'absent' here, 1.0 "),
    ):
        line = refused(write_config(tmp_path / "other.yaml", _changed(tree, key, value)))
        assert line == f"error: {message}{end}"
    _run([*config, "--train.log_every", "2", "--train.keep", "1"], monkeypatch)
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [2]


def test_a_mistake_found_after_the_claim_is_mended_in_place(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was trained, so the same folder takes another mixture and another vocabulary."""
    tree = _changed(tree, "train.steps", 1)
    wrong = _changed(tree, "data.mixture", {"weights": {"poetry": 1}})
    assert "poetry" in refused(write_config(tmp_path / "c.yaml", wrong))
    words = len((tmp_path / "run" / "tokenizer" / "tokenizer.json").read_text())
    mended = _changed(tree, "student.extended.vocabulary.words", 0)
    _run(write_config(tmp_path / "c.yaml", mended), monkeypatch)
    assert checkpoint.saved_steps(tmp_path / "run" / "checkpoints") == [1]
    assert len((tmp_path / "run" / "tokenizer" / "tokenizer.json").read_text()) < words


def test_a_corrupted_checkpoint(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: object
) -> None:
    config = write_config(tmp_path / "c.yaml", _changed(tree, "train.steps", 1))
    _run(config, monkeypatch)
    capfd.readouterr()  # type: ignore[attr-defined]
    path = tmp_path / "run" / "checkpoints" / "step-00000001" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    line = refused(config)
    assert line.startswith(f"error: {path}: not readable (")
    assert f"remove {path.parent} to go on from the checkpoint before it" in line


def test_a_mistake_on_two_processes_is_one_line_and_both_end_with_2(tree: dict[str, Any], tmp_path: Path) -> None:
    """Rank 0 finds it; the other ends without a word, and the launcher's report has the line."""
    arguments = write_config(tmp_path / "c.yaml", _changed(tree, "data.corpus", "/nowhere"))

    def work(rank: int) -> dict[str, torch.Tensor]:
        report = tmp_path / f"report-{rank}.json"
        patch = pytest.MonkeyPatch()
        patch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
        patch.setattr(sys, "argv", ["distill.py", *arguments])
        with (tmp_path / f"stderr-{rank}").open("w") as stderr:
            patch.setattr(sys, "stderr", stderr)
            with pytest.raises(SystemExit) as stop:
                run_cli(main.main)
        return {"code": torch.tensor(stop.value.code)}

    results: list[Any] = two_processes(work, tmp_path)
    assert [result["code"].item() for result in results] == [2, 2]
    line = (tmp_path / "stderr-0").read_text()
    assert line.startswith("error: data.corpus: /nowhere is no corpus")
    assert line.count("\n") == 1
    assert (tmp_path / "stderr-1").read_text() == ""
    for rank in range(2):
        message = json.loads((tmp_path / f"report-{rank}.json").read_text())["message"]["message"]
        assert message == line.strip()


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_stays(
    tree: dict[str, Any], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: object
) -> None:
    tree = _changed(tree, "train.save_every", 2)
    saved: list[Path] = []

    def full(tensors: Any, path: Path) -> None:  # noqa: ANN401
        saved.append(path)
        if len(saved) > 3:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("distill.train.checkpoint.save_file", full)
    monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", tree)])
    with pytest.raises(SystemExit) as stop:
        run_cli(main.main)
    assert stop.value.code == 2
    line = capfd.readouterr().err.splitlines()[-1]  # type: ignore[attr-defined]
    folder = tmp_path / "run" / "checkpoints"
    assert line.startswith(f"error: {folder}: step 4 could not be saved (")
    assert "No space left on device" in line
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]


def test_out_of_memory_names_the_setting(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: object
) -> None:
    def step(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(trainer.Trainer, "step", step)
    tree = _changed(tree, "train.tokens_at_once", 4096)
    monkeypatch.setattr(sys, "argv", ["distill.py", *write_config(tmp_path / "c.yaml", tree)])
    with pytest.raises(SystemExit) as stop:
        run_cli(main.main)
    assert stop.value.code == 2
    line = capfd.readouterr().err.splitlines()[-1]  # type: ignore[attr-defined]
    assert line.startswith(
        "error: train.tokens_at_once: out of memory on cpu with 4096 token positions at once; set it to"
    )


def test_the_script_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In this process; `test_accelerate_launch_runs_two_processes` starts it as a user does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # whose first the script replaces
    monkeypatch.setattr(sys, "argv", ["distill.py", "--config", "absent.yaml"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPOSITORY / "scripts" / "distill.py"), run_name="__main__")
    assert stop.value.code == 2
    assert capfd.readouterr().err == f"error: --config: no such file 'absent.yaml' (looked in {tmp_path})\n"
