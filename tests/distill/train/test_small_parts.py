"""The rate, the metrics file, the running means, validation, batches ahead of their step."""

import json
import platform
import resource
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from data.cli import UserError
from data.loader.token_store import TokenStore
from data.loader.tokenise import write_token_store
from distill.distributed import keep_freed_memory, tune_device
from distill.text_tower import EncoderOutput
from distill.train.batch import Prefetcher
from distill.train.metrics import MetricsFile, TermAverages, bitext_accuracy, validate
from distill.train.optim import lr_at
from distill.train.setup import compiles
from tests.distill.tiny_clip import SLOTS, teacher_tokenizer


def test_rate_by_hand() -> None:
    """Rises over two steps to the cosine; half-way it is half-way to the end."""
    assert lr_at(0, 100, 2, 0.0) == pytest.approx(0.5)
    assert lr_at(50, 100, 2, 0.0) == pytest.approx(0.5)
    assert lr_at(50, 100, 2, 0.2) == pytest.approx(0.6)
    assert lr_at(100, 100, 0, 0.2) == pytest.approx(0.2)
    assert lr_at(0, 100, 0, 0.2) == 1
    assert lr_at(1, 100, 4, 0.0) == pytest.approx(0.5, abs=1e-3)


def test_metrics_forget_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    """And a line that a kill cut short."""
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in (1, 2, 3, 4):
        file.write(step, {"loss": 0.5})
    file.close()
    with path.open("a") as more:
        more.write('{"step": 5, "lo')
    again = MetricsFile(path, 2)
    again.write(3, {"loss": 0.25})
    again.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]


def test_a_foreign_line_among_the_metrics_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\ngarbage\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a record"):
        MetricsFile(path, 5)


SOUND = torch.tensor(True)


def test_running_means() -> None:
    running = TermAverages()
    for value in (1.0, 3.0):
        running.add({"a": torch.tensor(value), "b": torch.tensor(2.0), "grad_norm": torch.tensor(9.0)}, 8, SOUND)
    values = running.pop()
    assert values.pop("pairs_per_second") > 0
    assert values == {"a": 2, "b": 2, "grad_norm": 9, "loss": 4}
    running.add({"a": torch.tensor(7.0)}, 8, SOUND)
    running.add({"a": torch.tensor(float("nan")), "b": torch.tensor(1.0)}, 8, ~SOUND)
    values = running.pop()
    assert (values["a"], values["loss"], "b" in values) == (7, 7, False), "a step that is skipped does not count"


def test_bitext_accuracy_by_hand() -> None:
    """The first row's own is second best, the columns' own are all best but the third's; a tie is a hit."""
    similarity = torch.tensor([[0.5, 0.6, 0.1], [0.2, 0.9, 0.9], [0.0, 0.1, 0.8]])
    assert bitext_accuracy(similarity) == pytest.approx({"zh2en": 2 / 3, "en2zh": 2 / 3})


def test_validation_takes_each_pair_to_its_own(corpus: Path, tmp_path: Path) -> None:
    """An encoder that knows a pair by its English ids: cosines 1 where it reads what the teacher reads."""
    words = teacher_tokenizer().backend_tokenizer
    tokens = TokenStore(write_token_store(corpus, tmp_path, words, words, SLOTS))
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(522, 64, generator=generator)

    def encode(ids: torch.Tensor) -> EncoderOutput:
        counted = (ids != 521).float()[..., None]
        return EncoderOutput(table[ids], (table[ids] * counted).sum(dim=1), ids != 521)

    result = validate(tokens.valid, encode, encode, 521, 521, torch.device("cpu"), 9)
    assert result.keys() == {f"caption/{name}" for name in ("cosine_zh", "cosine_en", "zh2en", "en2zh")}
    assert result["caption/cosine_en"] == pytest.approx(1, abs=1e-6)
    assert result["caption/cosine_zh"] < 0.9

    perfect = validate(
        {"caption": _English(tokens.valid["caption"])},  # type: ignore[dict-item]
        encode,
        encode,
        521,
        521,
        torch.device("cpu"),
        9,
    )
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-6)


class _English:
    """A domain whose Chinese is its English."""

    def __init__(self, domain: Any) -> None:  # noqa: ANN401
        self._domain = domain

    def __len__(self) -> int:
        return len(self._domain)

    def lengths(self, view: str, rows: Any) -> Any:  # noqa: ANN401
        return self._domain.lengths("teacher_en", rows)

    def gather(self, view: str, rows: Any) -> Any:  # noqa: ANN401
        return self._domain.gather("teacher_en", rows)


def test_prefetch_gives_every_step_and_passes_errors_on() -> None:
    class Numbers:
        def __getitem__(self, step: int) -> int:
            if step == 3:
                raise RuntimeError("no such row")
            return step * 10

    with Prefetcher(Numbers(), 1, 9, pin=False) as batches:  # type: ignore[arg-type]
        assert len(batches._ahead) == 2
        numbers: list[object] = [batches[1], batches[2]]
        assert numbers == [10, 20]
        with pytest.raises(RuntimeError, match="no such row"):
            batches[3]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_freed_memory_stays_with_the_process() -> None:
    """Of ten blocks of 64 MiB, one after the other, the system clears those given back, and few of those kept."""
    cleared = {}
    for keep in (False, True):
        keep_freed_memory(keep)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(1 << 24)
        cleared[keep] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert cleared[True] < cleared[False] / 2


def test_settings_of_a_device() -> None:
    """float32 products on tensor cores, and compiled towers, on CUDA alone; a run in fp32 keeps its digits."""
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    try:
        for precision, device in (("bf16", cpu), ("fp32", cuda)):
            tune_device(precision, device)  # type: ignore[arg-type]
            assert torch.get_float32_matmul_precision() == "highest"
        tune_device("bf16", cuda)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert compiles("auto", cuda) is (find_spec("triton") is not None)
    assert [compiles(setting, cpu) for setting in ("auto", True, False)] == [False, True, False]
    assert compiles(False, cuda) is False
