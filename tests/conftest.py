"""Fixtures that every test may ask for."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real corpora, teacher and benchmarks that lies beside the repository on some machines."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"real material is not on this machine: no folder {folder}")
    return folder
