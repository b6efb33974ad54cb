from pathlib import Path

import numpy as np
import pytest
import torch

from eval.metrics import l2_normalise
from eval.retrieval.images import load_image_tower
from eval.retrieval.models import TextTower, load_text_tower, text_features, token_ids
from eval.retrieval.result import CHINESE_CLIP, OPENAI, Protocol, normalise_caption

TEXTS = ["the cat", "", "机械狗在月亮上", "the dog, the cat, the dog and a very long sentence of many bytes", "x"]


@pytest.fixture(scope="module")
def tower(teacher: Path) -> TextTower:
    return load_text_tower(str(teacher), "--clip", torch.float32, torch.device("cpu"))


def test_features_do_not_depend_on_batches_or_padding(tower: TextTower) -> None:
    """A tight batch gives what every caption gives by itself on all 77 slots."""
    together = text_features(tower, TEXTS, OPENAI, batch_size=3).features
    for number, text in enumerate(TEXTS):
        ids = tower.tokenizer(text, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        alone = l2_normalise(tower.embed(ids.numpy()))[0]
        assert np.abs(together[number] - alone).max() < 2e-6
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_a_long_caption_keeps_its_end_of_text_and_is_counted(tower: TextTower) -> None:
    start, end = tower.tokenizer.bos_token_id, tower.tokenizer.eos_token_id
    ids, cut = token_ids(tower, ["the the the the", "the the the", "猫" * 10_000], max_length=5)
    assert cut == 2
    assert [(row[0], row[-1], len(row)) for row in ids] == [(start, end, 5)] * 3
    assert ids[0] == tower.tokenizer("the the the").input_ids
    encoded = text_features(tower, ["猫" * 10_000, "\x00\x07\u200b\ufeff"], OPENAI)
    assert encoded.cut == 1
    assert np.isfinite(encoded.features).all()


@pytest.mark.parametrize(
    ("protocol", "max_length", "limit"), [(CHINESE_CLIP, None, 52), (OPENAI, 200, 77), (OPENAI, 10, 10)]
)
def test_max_length_is_the_protocols_but_never_more_than_the_towers(
    protocol: Protocol, max_length: int | None, limit: int, tower: TextTower
) -> None:
    texts = ["the " * (limit - 2), "the " * (limit - 1)]  # of as many tokens as there is room for, and of one more
    encoded = text_features(tower, texts, protocol, max_length)
    assert encoded.cut == 1
    assert np.array_equal(*text_features(tower, texts, protocol, max_length, batch_size=1).features)


def test_chinese_clip_lowers_case_and_straightens_quotes() -> None:
    assert normalise_caption("“AI” 与 Café", CHINESE_CLIP) == '"ai" 与 café'
    assert normalise_caption("“AI” 与 Café", OPENAI) == "“AI” 与 Café"


def test_the_text_half_of_a_whole_clip_is_the_same_tower(clip: Path, tower: TextTower) -> None:
    whole = load_text_tower(str(clip), "--clip", torch.float32, torch.device("cpu"))
    assert np.array_equal(text_features(whole, TEXTS, OPENAI).features, text_features(tower, TEXTS, OPENAI).features)


def test_mean_and_size_of_the_image_tower_are_its_own(clip: Path, tmp_path: Path) -> None:
    import shutil

    plain = load_image_tower(str(clip), "--clip", torch.float32, torch.device("cpu")).preprocessing
    assert (plain.size, plain.mean[0]) == (32, 0.48145466)
    shutil.copytree(clip, tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [1.0, 1.0, 1.0]}'
    )
    own = load_image_tower(str(tmp_path / "clip"), "--clip", torch.float32, torch.device("cpu")).preprocessing
    assert (own.mean, own.std) == ((0.5, 0.4, 0.3), (1.0, 1.0, 1.0))
