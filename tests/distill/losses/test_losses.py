"""Each loss against values worked out by hand on two or three states."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from distill.distributed import averaged_gradients, gather_rows, mean_over_ranks
from distill.losses import Alignment, Contrastive, EmptyPrompt, Hidden, LossesConfig, LossInput, Pooled
from distill.losses.base import scheduled_terms
from distill.text_tower import EncoderOutput, text_mask
from distill.train.batch import Targets, TrainBatch
from distill.train.config import parse_config
from distill.train.task import Task, total
from tests.conftest import REPOSITORY
from tests.distill.forked import two_processes


def _states(
    pooled: list[list[float]], tokens: list[list[list[float]]] | None = None, text: object = None
) -> EncoderOutput:
    slots = torch.tensor(tokens or [[[1.0, 0.0]]] * len(pooled))
    is_text = torch.ones(slots.shape[:2], dtype=torch.bool) if text is None else torch.tensor(text)
    return EncoderOutput(slots, torch.tensor(pooled), is_text)


def _step(student: EncoderOutput, teacher: EncoderOutput, full: bool = False) -> LossInput:
    return LossInput(student, teacher, student, teacher, full)


TEACHER = _states([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
STUDENT = _states([[3.0, 0.0, 0.0], [1.0, 1.0, 0.0]])


def test_pooled_cosine() -> None:
    """Cosines 1 and 1/sqrt(2)."""
    terms = Pooled(chinese=2, english=1).terms(_step(STUDENT, TEACHER))
    wanted = (0 + 1 - 1 / math.sqrt(2)) / 2
    assert terms["pooled_zh"].item() == pytest.approx(2 * wanted, abs=1e-6)
    assert terms["pooled_en"].item() == pytest.approx(wanted, abs=1e-6)


def test_pooled_mse_is_in_units_of_the_teacher() -> None:
    """Squared errors 4 and 1 + 1, over the teacher's squared norms 1 and 4."""
    terms = Pooled(english=0, cosine=0, mse=0.5).terms(_step(STUDENT, TEACHER))
    assert terms.keys() == {"pooled_zh"}
    assert terms["pooled_zh"].item() == pytest.approx(0.5 * 6 / 5)


OURS = [[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]], [[1.0, 1.0], [9.0, 9.0], [9.0, 9.0]]]
THEIRS = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [9.0, 8.0]]]
OUR_TEXT, THEIR_TEXT = [[True, True, True], [True, True, False]], [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("loss", "by_slot"),
    [
        (Hidden(cosine=1), [0, 0, 1 - math.sqrt(0.5), 1 - 17 / math.sqrt(2 * 145)]),
        (Hidden(cosine=0, l1=1), [0, 0.5, 0.5, 0.5]),
        (Hidden(cosine=0, l2=1), [0, 0.5, 0.5, 0.5]),
        (Hidden(cosine=0, l1=2, l2=4), [0, 3, 3, 3]),
    ],
)
def test_hidden(loss: Hidden, by_slot: list[float]) -> None:
    """Tight: over the text of both, which is slots 0, 1 of the first and 0 of the second pair; full: over all."""
    zeros = [[1.0, 0.0]] * 2
    student, teacher = _states(zeros, OURS, OUR_TEXT), _states(zeros, THEIRS, THEIR_TEXT)
    tight = loss.terms(_step(student, teacher))
    assert tight.keys() == {"hidden_en"}
    assert tight["hidden_en"].item() == pytest.approx(sum(by_slot[:3]) / 3, abs=1e-6)
    full = loss.terms(_step(student, teacher, full=True))["hidden_en"]
    assert full.item() == pytest.approx(sum(by_slot) / 4, abs=1e-6)
    both = replace(loss, chinese=3.0, english=0.0).terms(_step(student, teacher))
    assert both.keys() == {"hidden_zh"}
    assert both["hidden_zh"].item() == pytest.approx(sum(by_slot[:3]), abs=1e-6)


def test_up_to_end() -> None:
    """The first end-of-text counts, the padding after it, which has the same id, does not."""
    ids = torch.tensor([[8, 1, 9, 9], [8, 9, 9, 9], [8, 1, 2, 9]])
    wanted = [[True, True, True, False], [True, True, False, False], [True, True, True, True]]
    assert text_mask(ids, 9).tolist() == wanted


def _info_nce(rows: list[list[float]]) -> float:
    """Mean of -log softmax at the diagonal; None of the entries left out is finite."""
    return sum(math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(rows)) / len(rows)


def test_contrastive_by_hand() -> None:
    """Chinese (1, 0) and (1, 1) against English (1, 0) and (0, 2), temperature 1/2."""
    h = math.sqrt(0.5)
    wanted = (_info_nce([[2, 0], [2 * h, 2 * h]]) + _info_nce([[2, 2 * h], [0, 2 * h]])) / 2
    got = Contrastive(weight=0.1, temperature=0.5).terms(_step(STUDENT, TEACHER))["contrastive"]
    assert got.item() == pytest.approx(0.1 * wanted, abs=1e-6)


def test_duplicates_are_not_negatives() -> None:
    """Two pairs with one English sentence: neither is told to leave the other, a third is."""
    teacher = _states([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    student = _states([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ninf = -math.inf
    one_way = _info_nce([[1, ninf, 0], [ninf, 1, 0], [0, 0, 1]])
    got = Contrastive(weight=1, temperature=1).terms(_step(student, teacher))["contrastive"]
    assert got.item() == pytest.approx(one_way, abs=1e-6)
    near = _states([[1.0, 0.0], [1.0, 0.05], [0.0, 1.0]])  # cosine 0.9988: another sentence
    other = Contrastive(weight=1, temperature=1).terms(_step(student, near))["contrastive"]
    assert other.item() > one_way + 0.1


def test_the_loss_of_a_step_is_the_sum_of_its_terms() -> None:
    config = LossesConfig(Pooled(), None, Contrastive())
    terms = scheduled_terms(config.enabled, _step(STUDENT, TEACHER))
    assert terms.keys() == {"pooled_zh", "pooled_en", "contrastive"}
    assert total(terms).item() == pytest.approx(sum(term.item() for term in terms.values()))


def test_gather_of_one_process_is_the_identity() -> None:
    rows = torch.ones(2, 3)
    assert gather_rows(rows) is rows
    assert mean_over_ranks(torch.tensor(3.0)).item() == 3


def _batch() -> tuple[torch.Tensor, EncoderOutput, EncoderOutput]:
    """Six pairs of three slots; the later ones have fewer, so that two ranks count differently."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 4, generator=generator)
    is_text = torch.tensor([[True, i < 3, i < 2] for i in range(6)])
    student, teacher = (
        EncoderOutput(torch.randn(6, 3, 4, generator=generator), torch.randn(6, 4, generator=generator), is_text)
        for _ in range(2)
    )
    return weight, student, teacher


def _gradient(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of some rows under all losses, and its gradient in a weight that all states pass through."""
    weight, student, teacher = _batch()
    weight.requires_grad_(True)
    mine = student.rows(rows)
    through = EncoderOutput(mine.hidden_states @ weight, mine.pooled @ weight, mine.text_mask)
    config = LossesConfig(Pooled(mse=0.7), Hidden(chinese=0.5, l1=0.3, l2=0.2), Contrastive(1.0, 0.1))
    loss = total(scheduled_terms(config.enabled, _step(through, teacher.rows(rows))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return loss.detach(), weight.grad


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """The ranks' averages, as DDP takes them, are those of the whole batch, for every loss at once."""
    loss, gradient = _gradient(slice(0, 6))
    parts: list[Any] = two_processes(lambda rank: _gradient(slice(3 * rank, 3 * rank + 3)), tmp_path)
    losses, gradients = zip(*parts, strict=True)
    assert not torch.allclose(losses[0], losses[1])
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), gradient)


def test_gather_is_in_rank_order_with_gradients_from_all(tmp_path: Path) -> None:
    def work(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.full((2, 1), float(rank), requires_grad=True)
        gathered = gather_rows(rows)
        (gathered * (rank + 1) * torch.tensor([[1.0], [2.0], [3.0], [4.0]])).sum().backward()  # type: ignore[no-untyped-call]
        assert rows.grad is not None
        return gathered.detach(), rows.grad

    results: list[Any] = two_processes(work, tmp_path)
    for (gathered, gradient), wanted in zip(results, ([3.0, 6.0], [9.0, 12.0]), strict=True):
        assert gathered.flatten().tolist() == [0, 0, 1, 1]
        assert gradient.flatten().tolist() == wanted


@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_are_averaged_by_hand(bf16: bool, tmp_path: Path) -> None:
    """In bf16, 1 + 2 ** -12 is 1 on its way."""

    def work(rank: int) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.zeros(3))
        with averaged_gradients([weight], bf16):
            weight.grad = torch.tensor([1.0, float(rank), 1 + 2**-12])
        return weight.grad

    results: list[Any] = two_processes(work, tmp_path)
    for gradient in results:
        assert gradient.tolist() == [1.0, 0.5, 1.0 if bf16 else 1 + 2**-12]
        assert gradient.dtype == torch.float32


def test_losses_are_exact_under_autocast() -> None:
    """Half-precision products would call neighbours with cosine 0.998 the same sentence."""

    class Fixed(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> EncoderOutput:
            return EncoderOutput(ids[..., None].float(), F.normalize(ids.float() + 0.1, dim=-1), ids > -1)

    ids = torch.tensor([[100, 1], [100, 8]])
    reading = TrainBatch(ids, ids, ids, None, english_stride=1, padded_to_max=False, draw=0)
    task = Task(Fixed(), LossesConfig(None, None, Contrastive(1.0, 0.05)))  # type: ignore[arg-type]
    states = Fixed()(ids)
    plain = Contrastive(1.0, 0.05).terms(_step(states, states))["contrastive"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = task.terms(reading, [states, states], Targets(states, states), 0.0)["contrastive"]
    assert torch.equal(plain, half)


@pytest.mark.parametrize("name", ["sdxl-l", "sdxl-g"])
@pytest.mark.parametrize("language", ["chinese", "english"])
def test_states_without_a_final_norm_are_taught_their_length(name: str, language: str) -> None:
    """With the losses of the configurations, states that are right but for their length cost something."""
    config = parse_config(["--config", str(REPOSITORY / "configs" / f"{name}.yaml")])
    random = torch.Generator().manual_seed(0)
    states = torch.randn(2, 4, 3, generator=random)
    right = EncoderOutput(states, states[:, 0], torch.ones(2, 4).bool())
    losses = [loss for loss in config.losses.enabled if not isinstance(loss, EmptyPrompt)]
    found = {}
    for factor in (0.5, 1.0, 3.0):
        scaled = EncoderOutput(factor * states, states[:, 0], right.text_mask)
        outputs = {"chinese": right, "english": right, language: scaled}
        step = LossInput(outputs["chinese"], right, outputs["english"], right, padded_to_max=True)
        found[factor] = total(scheduled_terms(losses, step)).item()
    assert found[0.5] > found[1.0] + 0.02
    assert found[3.0] > found[1.0] + 0.3


def test_the_norm_term_of_an_alignment_by_hand() -> None:
    """One state after the start token, twice as long as the teacher's: 0.1 (2 - 1)^2 / 1^2; its direction is right."""
    teacher = torch.tensor([[[9.0, 9.0], [0.0, 1.0]]])
    mask = torch.ones(1, 2).bool()
    ours, theirs = EncoderOutput(2 * teacher, teacher[:, 0], mask), EncoderOutput(teacher, teacher[:, 0], mask)
    terms = Alignment().terms(LossInput(ours, theirs, ours, theirs, padded_to_max=False))
    assert terms["alignment"].item() == pytest.approx(0, abs=1e-6)
    assert terms["alignment_norm"].item() == pytest.approx(0.1)
