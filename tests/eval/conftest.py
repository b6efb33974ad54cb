"""Small random towers and a benchmark of drawn pictures, for the tests of the commands."""

from pathlib import Path

import pytest

from tests.eval.files import Files, write_files
from tests.eval.tiny import save_clip, save_text_half, save_translator


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CLIPModel."""
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text half of the same CLIPModel."""
    return save_text_half(tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another text tower of the same width."""
    return save_text_half(tmp_path_factory.mktemp("models") / "student", seed=1)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One benchmark of 12 pictures in every layout."""
    return write_files(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sequence-to-sequence model of bytes."""
    return save_translator(tmp_path_factory.mktemp("translator"))
