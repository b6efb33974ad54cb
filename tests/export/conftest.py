"""A tiny trained student for the tests of the export."""

import pytest
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from tests.eval.tiny import text_half, tiny_clip, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    """With a Chinese token above the end-of-text, as a student has."""
    return tiny_tokenizer(chinese=True)


@pytest.fixture
def model(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Random weights, drawn anew for each test."""
    return text_half(tiny_clip(tokenizer))
