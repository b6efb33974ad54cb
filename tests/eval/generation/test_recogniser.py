from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.miniature import ASSETS
from data.miniature.render import render_batch
from data.miniature.scene import BACKGROUNDS, COLOURS, KINDS, SIZES, Scene, Thing, sample_scenes
from eval.generation.recogniser import (
    FIELDS,
    Group,
    RecognisedScene,
    _decode,
    load_recogniser,
    match_scene,
    recognise,
    relation_holds,
)
from eval.miniature.dataset import (
    background_indices,
    batch_rows,
    cell_targets,
    english_captions,
    learn_tokenizer,
    phrase_ends,
    tokenise_captions,
)
from eval.miniature.train_clip import POSITION_NAMES, scene_codes
from eval.miniature.train_images import cell_losses
from eval.miniature.training_loop import TrainingConfig, fit, scheduled_lr


def perfect(scenes: list[Scene]) -> list[RecognisedScene]:
    """Readings from cells that say exactly the truth."""
    truth = cell_targets(scenes).long()
    cells = torch.full((len(scenes), sum(FIELDS), 8, 8), -9.0)
    cells[:, 0] = truth[..., 0] * 18 - 9
    cells[:, 1:3] = truth[..., 1:3].permute(0, 3, 1, 2) / 100
    starts = np.cumsum([0, *FIELDS])
    for field, width in enumerate(FIELDS[2:], 2):
        named = torch.nn.functional.one_hot(truth[..., field + 1], width).permute(0, 3, 1, 2)
        cells[:, starts[field] : starts[field + 1]] = named * 9.0
    return _decode(cells, torch.nn.functional.one_hot(background_indices(scenes), len(BACKGROUNDS)).float())


def test_perfect_cells_read_every_scene_right() -> None:
    scenes = sample_scenes(2000, 4, "train") + sample_scenes(500, 5, "test")
    for scene, reading in zip(scenes, perfect(scenes), strict=True):
        found = match_scene(scene, reading)
        assert found.all_but_size, (scene, reading)
        assert found.sizes
        assert found.num_matched == found.num_things == len(scene.things)


def test_each_mistake_is_seen() -> None:
    scene = Scene((Thing("cat", "red", "small", 2), Thing("boat", "blue", "large")), "sea", ("left",))
    cat, boat = Group("cat", "red", "small", 2, 0.25, 0.5), Group("boat", "blue", "large", 1, 0.75, 0.5)
    assert match_scene(scene, RecognisedScene((boat, cat), "sea")).all_but_size
    pink = match_scene(scene, RecognisedScene((Group("cat", "pink", "small", 2, 0.25, 0.5), boat), "sea"))
    assert (pink.num_matched, pink.exact, pink.counts, pink.relations) == (1, False, False, False)
    more = match_scene(scene, RecognisedScene((cat, boat, Group("sun", "red", "small", 1, 0.5, 0.2)), "sea"))
    assert (more.num_matched, more.exact, more.counts) == (2, False, True)
    one = match_scene(scene, RecognisedScene((Group("cat", "red", "large", 1, 0.25, 0.5), boat), "snow"))
    assert (one.exact, one.counts, one.sizes, one.relations, one.background) == (True, False, False, True, False)
    swapped = RecognisedScene(
        (Group("cat", "red", "small", 2, 0.75, 0.5), Group("boat", "blue", "large", 1, 0.25, 0.5)), "sea"
    )
    assert (match_scene(scene, swapped).exact, match_scene(scene, swapped).relations) == (True, False)


@pytest.mark.parametrize(
    ("relation", "x", "y", "holds"),
    [
        ("left", 0.25, 0.5, True), ("left", 0.75, 0.5, False), ("right", 0.75, 0.5, True),
        ("above", 0.5, 0.05, True), ("above", 0.5, 0.2, False), ("on", 0.5, 0.2, True), ("on", 0.5, 0.05, False),
        ("below", 0.5, 0.9, True), ("below", 0.5, 0.1, False), ("left", 0.4, 0.9, False),
    ],
)  # fmt: skip
def test_where_things_stand(relation: str, x: float, y: float, holds: bool) -> None:
    landmark = Group("boat", "blue", "large", 1, 0.5, 0.55)
    assert relation_holds(relation, Group("cat", "red", "small", 1, x, y), landmark) is holds


def test_losses_vanish_on_the_truth_and_not_elsewhere() -> None:
    truth = cell_targets(sample_scenes(8, 1, "train"))
    cells = torch.zeros(8, sum(FIELDS), 8, 8, requires_grad=True)
    losses = cell_losses(cells, truth)
    assert losses["kind"].item() == pytest.approx(np.log(len(KINDS)), rel=1e-4)
    assert losses["colour"].item() == pytest.approx(np.log(len(COLOURS)), rel=1e-4)
    assert losses["size"].item() == pytest.approx(0.5 * np.log(len(SIZES)), rel=1e-4)
    assert losses["presence"].item() == pytest.approx(10 * np.log(2), rel=1e-4)


def test_rows_come_once_an_epoch_and_are_pure() -> None:
    seen = np.concatenate([batch_rows(10, 3, 1, step) for step in range(3)])
    assert len(set(seen.tolist())) == 9
    np.testing.assert_array_equal(batch_rows(10, 3, 1, 5), batch_rows(10, 3, 1, 5))
    assert (batch_rows(1000, 500, 1, 0) != batch_rows(1000, 500, 1, 2)).any()


def test_training_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    def model() -> torch.nn.Linear:
        torch.manual_seed(0)
        return torch.nn.Linear(3, 2)

    def losses(of: torch.nn.Linear, stop: int = 99) -> Callable[[int], dict[str, torch.Tensor]]:
        def found(step: int) -> dict[str, torch.Tensor]:
            if step == stop:
                raise KeyboardInterrupt
            inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            return {"square": of(inputs).square().mean()}

        return found

    plan = TrainingConfig(steps=12, rate=0.1, warmup=2, save_seconds=0)
    whole, cut, resumed = model(), model(), model()
    fit("whole", whole, plan, losses(whole), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit("cut", cut, plan, losses(cut, stop=7), tmp_path / "cut")
    fit("cut", resumed, plan, losses(resumed), tmp_path / "cut")
    torch.testing.assert_close(resumed.weight, whole.weight, rtol=0, atol=0)
    assert (resumed.weight - model().weight).abs().max() > 0.05
    again = model()
    fit("whole", again, plan, losses(again, stop=0), tmp_path / "whole")  # done: nothing is trained
    torch.testing.assert_close(again.weight, whole.weight, rtol=0, atol=0)


def test_the_rate_rises_and_falls() -> None:
    plan = TrainingConfig(steps=100, rate=1.0, warmup=10)
    assert scheduled_lr(plan, 0) == pytest.approx(0.1)
    assert scheduled_lr(plan, 9) == scheduled_lr(plan, 10) == pytest.approx(1)
    assert scheduled_lr(plan, 100) == pytest.approx(0.05)


def test_the_tokenizer_says_any_text_and_words_in_one_token(tmp_path: Path) -> None:
    texts = english_captions(sample_scenes(2000, 1, "train"), 0)
    tokenizer = learn_tokenizer(texts, 900, tmp_path)
    assert len(tokenizer) <= 900
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert (tmp_path / "vocab.json").is_file()
    assert (tmp_path / "merges.txt").is_file()
    assert tokenizer.tokenize("The sea") == ["the</w>", "sea</w>"]
    odd = tokenizer("戴帽子 naïve 🙂 \x07").input_ids
    assert str(tokenizer.decode(odd, skip_special_tokens=True)).replace(" ", "") == "戴帽子naïve🙂\x07"
    assert tokenizer.unk_token_id not in odd[1:-1]


def test_noun_phrases_are_found(tmp_path: Path) -> None:
    text = "Under a starry night sky, two suns (small, red) left of a top hat"
    scene = Scene((Thing("sun", "red", "small", 2), Thing("hat", "red")), "night", ("left",))
    ends = phrase_ends(text, scene)
    assert [text[:end].split()[-1] for end in ends] == ["red)", "hat"]
    scenes = sample_scenes(600, 3, "train")
    texts = english_captions(scenes, 0)
    found = tokenise_captions(scenes, texts, learn_tokenizer(texts, 800, tmp_path))
    assert all((row >= 0).sum() == len(one.things) for row, one in zip(found.noun, scenes, strict=True))
    assert (found.noun.max(1).values < found.length).all()


def test_the_code_of_a_scene_by_hand() -> None:
    scene = Scene((Thing("cat", "red", "small"), Thing("boat", "blue", "large")), "sea", ("on",))
    found = scene_codes([scene])[0]
    cat = found[KINDS.index("cat")].nonzero().flatten().tolist()
    assert cat == [
        0,
        1 + COLOURS.index("red"),
        9,
        12,
        16 + POSITION_NAMES.index("top"),
        16 + POSITION_NAMES.index("bearing"),
    ]
    assert found.sum() == 12


def test_the_committed_recogniser_reads_unseen_scenes() -> None:
    if not (ASSETS / "recogniser" / "model.safetensors").is_file():
        pytest.skip("the recogniser is not built; run scripts/build_miniature.py")
    scenes = sample_scenes(300, 2, "test")
    readings = recognise(load_recogniser(ASSETS / "recogniser"), render_batch(scenes, range(300)))
    right = np.mean([match_scene(scene, one).all_but_size for scene, one in zip(scenes, readings, strict=True)])
    assert right >= 0.98
