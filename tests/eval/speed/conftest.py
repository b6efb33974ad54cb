"""The tiny teacher and corpus of the training tests."""

from tests.distill.conftest import corpus, one_process, teacher

__all__ = ["corpus", "one_process", "teacher"]
