"""The miniature SDXL: what its denoiser starts from, what it is trained on, how its folder shares files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from data.miniature import ASSETS
from eval.generation.pipeline import load_pipeline
from eval.miniature.build_xl import TunedConfig, at_dusk, build_tuned, link_equal_files, new_xl_unet
from eval.miniature.train_clip import SECOND_WIDTH, TextLearner, new_text_tower
from eval.miniature.train_unet import TrainedPrompts, UnetPrompts, new_unet
from eval.miniature.training_loop import TrainingConfig
from tests.distill.tiny_clip import teacher_tokenizer


def test_the_denoiser_starts_as_the_first_one_on_mapped_states() -> None:
    """K of states h is the first's K of h maps; pooled state and time ids add nothing yet."""
    torch.manual_seed(0)
    first, maps = new_unet(), torch.randn(256 + SECOND_WIDTH, 256) / 24
    unet, states = new_xl_unet(first, maps), torch.randn(2, 5, 256 + SECOND_WIDTH)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    torch.testing.assert_close(unet.get_submodule(name)(states), first.get_submodule(name)(states @ maps))
    assert torch.equal(unet.conv_in.weight, first.conv_in.weight)
    noisy, times = torch.randn(2, 16, 8, 8), torch.tensor([3, 700])
    with torch.no_grad():
        outputs = [
            unet(noisy, times, states, added_cond_kwargs={
                "text_embeds": torch.full((2, SECOND_WIDTH), value), "time_ids": torch.full((2, 6), 64),
            }).sample
            for value in (0.0, 9.0)
        ]  # fmt: skip
    assert torch.equal(*outputs)
    assert not any("mid_block.attentions" in weight for weight in unet.state_dict())


def test_what_is_read_of_prompts_left_out() -> None:
    """Row 0 is the empty prompt's; of SDXL's prompts left out, every second is zeros, states and pooled state."""
    first, second = (np.arange(5, dtype=np.float16)[:, None, None] + place for place in (10, 20))
    rows, has_text = np.array([0, 1, 2, 3]), torch.tensor([True, False, False, True])
    states, added = UnetPrompts((first,)).take(rows, has_text)
    assert (states[:, 0, 0].tolist(), added) == ([11, 10, 10, 14], None)
    pair = UnetPrompts((first, second), np.arange(5, dtype=np.float16)[:, None], (64, 64, 0, 0, 64, 64))
    states, added = pair.take(rows, has_text)
    assert added is not None
    assert states[:, 0].tolist() == [[11, 21], [0, 0], [10, 20], [14, 24]]
    assert added["text_embeds"].tolist() == [[1], [0], [0], [4]]
    assert added["time_ids"].shape == (4, 6)


def test_equal_files_become_links(tmp_path: Path) -> None:
    for folder, text in (("first", "same"), ("second", "same"), ("second", "own")):
        (tmp_path / folder / "vae").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "vae" / f"{text}.txt").write_text(text)
    (tmp_path / "first" / "vae" / "own.txt").write_text("other")
    link_equal_files(tmp_path / "second", tmp_path / "first")
    same, own = (tmp_path / "second" / "vae" / f"{name}.txt" for name in ("same", "own"))
    assert (same.is_symlink(), own.is_symlink()) == (True, False)
    assert str(same.readlink()) == "../../first/vae/same.txt"
    assert (same.read_text(), own.read_text()) == ("same", "own")


def test_every_weight_of_the_tower_learns() -> None:
    """A step's terms reach every weight of the tower but the last layer's read-outs of nouns, which read before it."""
    torch.manual_seed(0)
    learner = TextLearner(new_text_tower(teacher_tokenizer()))
    ids, noun = torch.randint(0, 500, (4, 9)), torch.tensor([[3, -1, -1]] * 4)
    ids[:, -1] = 521  # end-of-text
    kinds, truth = torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, *learner_truth_shape(learner), dtype=torch.uint8)
    terms = learner.losses(torch.randn(4, 256), ids, noun, kinds, truth, torch.zeros(4, dtype=torch.long))
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, weight in learner.named_parameters() if weight.grad is None] == []


def learner_truth_shape(learner: TextLearner) -> tuple[int, int]:
    from data.miniature.scene import KINDS

    return len(KINDS), learner.code.out_features // len(KINDS)


@pytest.mark.slow
def test_a_fine_tuned_checkpoint_is_built_and_loads(tmp_path: Path) -> None:
    """Denoiser and text encoder have both moved; what is loaded is a pipeline like the first."""
    training = TrainingConfig(steps=2, rate=1e-3, warmup=1)
    build_tuned(TunedConfig(tmp_path / "work", tmp_path / "out", scenes=80, drawn=2, training=training))
    first, tuned = (load_pipeline(str(each), torch.device("cpu")) for each in (ASSETS / "pipeline", tmp_path / "out"))
    for part in ("unet", "text_encoder"):
        own, other = (getattr(pipeline, part).state_dict() for pipeline in (first, tuned))
        assert own.keys() == other.keys()
        assert any(not torch.equal(own[name], other[name]) for name in own), part


def test_an_encoder_that_trains_with_the_denoiser_has_gradients() -> None:
    """Row 0 is the empty prompt's, and the UNet's read-outs of the states reach the encoder."""
    encoder = CLIPTextModel(
        CLIPTextConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    prompts = TrainedPrompts(encoder, torch.tensor([[1, 2], [1, 3], [1, 4]]))
    states, added = prompts.take(np.array([0, 1]), torch.tensor([True, False]))
    with torch.no_grad():
        expected = encoder(torch.tensor([[1, 3], [1, 2]])).last_hidden_state
    torch.testing.assert_close(states, expected, atol=0.05, rtol=0.05)
    assert added is None
    states.sum().backward()  # type: ignore[no-untyped-call]
    assert encoder.get_parameter("embeddings.token_embedding.weight").grad is not None


def test_dusk_by_hand() -> None:
    assert at_dusk(np.array([[0, 100, 255]], np.uint8)).tolist() == [[9, 89, 235]]
