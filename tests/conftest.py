"""Fixtures that every test may ask for."""

from pathlib import Path

import pytest
from transformers.utils.logging import disable_progress_bar

REPOSITORY = Path(__file__).parents[1]


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
