"""Texts of a step in few passes: by hand, and with the outputs and gradients of single passes."""

from pathlib import Path

import pytest
import torch

from distill import text_tower
from distill.student.chinese_bpe import VocabularyConfig
from distill.student.extended import ExtendedConfig
from distill.text_tower import EncoderOutput, load_pretrained, text_mask
from distill.train.batch import Teacher
from distill.train.passes import encode_pooled, join_passes
from eval.speed.measure import LaunchCounter
from tests.distill.tiny_clip import teacher_model


def _texts(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.ones(shape, dtype=torch.int64) for shape in shapes]


@pytest.mark.parametrize(
    ("shapes", "launch_cost", "passes"),
    [
        ([(8, 77), (2, 77), (1, 77)], 0, [(11, 77)]),  # a max-length step: nothing to pad
        ([(8, 14), (2, 14), (1, 77)], 0, [(1, 77), (10, 14)]),
        ([(8, 14), (2, 12)], 0, [(8, 14), (2, 12)]),
        ([(8, 14), (2, 12)], 3, [(8, 14), (2, 12)]),  # one pass pads 4 positions, two cost 3 more
        ([(8, 14), (2, 12)], 5, [(10, 14)]),
        ([(8, 14), (2, 12), (1, 77)], 100, [(1, 77), (10, 14)]),  # not the English to the 77
        ([(8, 14), (2, 12), (1, 77)], 1000, [(11, 77)]),
    ],
)
def test_passes_by_hand(shapes: list[tuple[int, int]], launch_cost: int, passes: list[tuple[int, int]]) -> None:
    joined = join_passes(_texts(*shapes), 0, launch_cost)
    assert [tuple(ids.shape) for ids, _ in joined.inputs] == passes
    assert joined.positions == sum(rows * length for rows, length in passes)


def test_every_text_gets_its_own_output_back() -> None:
    texts = [torch.tensor(rows) for rows in ([[1, 2, 9], [3, 9, 9]], [[4, 9]], [[5, 6, 7, 8, 9]], [[7, 7, 9]])]
    passes = join_passes(texts, 9, 2)
    assert [ids.tolist() for ids, _ in passes.inputs] == [
        [[5, 6, 7, 8, 9]], [[1, 2, 9], [3, 9, 9], [4, 9, 9], [7, 7, 9]],
    ]  # fmt: skip
    outputs = [EncoderOutput(ids[..., None].float(), ids[:, :1].float(), text_mask(ids, 9)) for ids, _ in passes.inputs]
    for text, output in zip(texts, passes.split(outputs), strict=True):
        assert torch.equal(output.hidden_states[..., 0].long(), text)
        assert torch.equal(output.pooled.long(), text[:, :1])
        assert torch.equal(output.text_mask, text_mask(text, 9))


def test_joined_passes_are_the_single_ones(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """States, pooled states and gradients of a student, within rounding."""
    pretrained, kind = load_pretrained(str(teacher)), ExtendedConfig(VocabularyConfig(12, 1))
    kind.build_tokenizer(pretrained, corpus, tmp_path / "t")
    tokenizer = kind.load_tokenizer(tmp_path / "t", "t")
    student = kind.build(pretrained, tokenizer, {}, on_cpu=True)
    texts = [
        tokenizer(rows, padding=True, return_tensors="pt")["input_ids"]
        for rows in (["草地上的一只红色的猫", "狗"], ["a red cat on the grass"], [""])
    ]
    assert len({text.shape[1] for text in texts}) == 3
    found = []
    for launch_cost in (0, 10_000):
        passes = join_passes(texts, student.vocabulary.pad_id, launch_cost)
        assert len(passes.inputs) == (1 if launch_cost else 3)
        outputs = passes.split([student(ids) for ids, _ in passes.inputs])
        loss = sum((o.hidden_states.square().mean() + o.pooled.sum() for o in outputs), torch.zeros(()))
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((outputs, {name: weight.grad for name, weight in student.named_parameters()}))
        student.zero_grad()
    (single, gradients), (joined, joined_gradients) = found
    for one, other in zip(single, joined, strict=True):
        torch.testing.assert_close(other.hidden_states, one.hidden_states)
        torch.testing.assert_close(other.pooled, one.pooled)
        assert torch.equal(other.text_mask, one.text_mask)
    torch.testing.assert_close(joined_gradients, gradients, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_teacher_in_bf16_has_the_bits_of_autocast(teacher: Path) -> None:
    """And launches no conversion of a weight any more, nor the factors of QuickGELU."""
    ids = torch.randint(0, 520, (3, 9))
    ids[:, -1] = 521
    frozen = Teacher(load_pretrained(str(teacher)), torch.device("cpu"))
    counts, outputs = [], []
    for converted in (False, True):
        if converted:
            frozen.convert_to_bf16()
        with torch.autocast("cpu", torch.bfloat16):
            frozen(ids)
            with LaunchCounter() as counter:
                outputs.append(frozen(ids))
        counts.append(counter.kernels)
    assert torch.equal(outputs[0].hidden_states, outputs[1].hidden_states)
    assert torch.equal(outputs[0].pooled, outputs[1].pooled)
    assert counts[0]["_to_copy"] - counts[1]["_to_copy"] == 2 * 12 + 1  # weights and biases of 2 layers; the projection
    assert counts[1]["mul"] == 2  # the scale of attention


@pytest.mark.parametrize("positions", [1, 40, 10_000])
def test_pooled_states_alone(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients are those of the whole output, for texts of many lengths in any order."""
    monkeypatch.setattr("distill.train.passes._POOLED_POSITIONS", positions)
    model = text_tower.optimize_for_device(teacher_model(522), on_cpu=True)
    ids = torch.randint(3, 500, (9, 12), generator=torch.Generator().manual_seed(0))
    for row, end in enumerate((3, 11, 1, 7, 7, 2, 10, 5, 9)):
        ids[row, end:] = 521
    found = []
    for encode in (text_tower.encode_ids, encode_pooled):
        output = encode(model, ids)
        output.pooled.square().sum().backward()  # type: ignore[no-untyped-call]
        found.append((output.pooled, {name: weight.grad for name, weight in model.named_parameters()}))
        model.zero_grad()
    (whole, gradients), (pooled, pooled_gradients) = found
    torch.testing.assert_close(pooled, whole)
    torch.testing.assert_close(pooled_gradients, gradients, atol=1e-4, rtol=1e-3)
    assert output.hidden_states.shape == (9, 0, 0)
    assert output.text_mask.shape == (9, 0)
