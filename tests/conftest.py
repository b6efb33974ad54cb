"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest
import torch
from transformers.utils.logging import disable_progress_bar

REPOSITORY = Path(__file__).parents[1]
torch.set_num_threads(1)  # sums in one order, whatever else the machine does; the tests run beside each other
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so in what they start


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real corpora, teacher and benchmarks that lies beside the repository on some machines."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"real material is not on this machine: no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_bars() -> None:
    """transformers' bars would stand among the lines that tests read on stderr."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
