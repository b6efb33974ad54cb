"""The losses beyond the pooled, hidden and contrastive ones, against values worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.geometry import CrossAttention, Geometry, attend
from distill.losses import (
    Affinity,
    Alignment,
    EmptyPrompt,
    EmptyPromptStates,
    Hidden,
    KvMetric,
    LossesConfig,
    LossInput,
    LossSchedule,
    Pooled,
    Readout,
    Similarity,
    Translation,
)
from distill.losses.base import scheduled_terms
from distill.losses.hidden import transport
from distill.text_tower import EncoderOutput
from distill.train.task import total
from tests.distill.forked import two_processes


def _states(tokens: list[list[list[float]]], text: list[list[bool]] | None = None) -> EncoderOutput:
    slots = torch.tensor(tokens)
    is_text = torch.ones(slots.shape[:2], dtype=torch.bool) if text is None else torch.tensor(text)
    return EncoderOutput(slots, slots[:, -1], is_text)


def _step(
    student: EncoderOutput, teacher: EncoderOutput, full: bool = False, geometry: Geometry | None = None
) -> LossInput:
    return LossInput(student, teacher, student, teacher, full, geometry=geometry)


def test_affinity_by_hand() -> None:
    """Student cosines 1/sqrt2, 0, 1/sqrt2 between three sentences, teacher's 0, 1, 0; scale does not matter."""
    student = _states([[[3.0, 0.0]], [[1.0, 1.0]], [[0.0, 2.0]]])
    teacher = _states([[[1.0, 0.0]], [[0.0, 1.0]], [[5.0, 0.0]]])
    got = Affinity(weight=2).terms(_step(student, teacher))
    assert got.keys() == {"affinity"}
    assert got["affinity"].item() == pytest.approx(2 * (0.5 + 1 + 0.5) / 3, abs=1e-6)
    alone = Affinity().terms(_step(_states([[[1.0, 2.0]]]), _states([[[3.0, 1.0]]])))
    assert alone["affinity"].item() == 0


def test_similarity_by_hand() -> None:
    """Student (1, 0), teacher (0, 1), and one more key (1, 0); temperature 1/2; the teacher as a student has 0."""
    student, teacher, anchors = _states([[[3.0, 0.0]]]), _states([[[0.0, 2.0]]]), torch.tensor([[1.0, 0.0]])
    step = replace(_step(student, teacher), anchors=anchors)
    got = Similarity(chinese=2, english=1, temperature=0.5).terms(step)
    near, far = math.exp(2) / (1 + math.exp(2)), 1 / (1 + math.exp(2))  # of the keys (0, 1), (1, 0) as the teacher sees
    wanted = near * math.log(near / far) + far * math.log(far / near)
    assert got.keys() == {"similarity_zh", "similarity_en"}
    assert got["similarity_zh"].item() == pytest.approx(2 * wanted, abs=1e-6)
    assert got["similarity_en"].item() == pytest.approx(wanted, abs=1e-6)
    same = Similarity(english=0).terms(replace(_step(teacher, teacher), anchors=anchors))
    assert same.keys() == {"similarity_zh"}
    assert same["similarity_zh"].item() == pytest.approx(0, abs=1e-6)


E1, E2, E3 = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]


def test_alignment_knows_no_order_but_wants_all() -> None:
    """The start token (first slot) is ignored; order costs nothing, a missing state costs its share."""
    teacher = _states([[E1, E1, E2, E3]])
    turned = _states([[E2, E3, E1, E2]])
    assert Alignment(weight=1, smoothing=0.01).terms(_step(turned, teacher))["alignment"].item() < 1e-6
    assert Hidden().terms(_step(turned, teacher))["hidden_en"].item() == pytest.approx(1)
    poor = _states([[E1, E1, E1, E2]])  # E3 has nobody: a third of the mass at cost 1
    got = Alignment(weight=3, smoothing=0.01).terms(_step(poor, teacher))["alignment"].item()
    assert got == pytest.approx(3 * 1 / 3, abs=1e-4)


def test_alignment_of_one_state_is_its_mean_cost() -> None:
    """One Chinese state carries everything: the mean of the costs 0 and 1; padding is not asked."""
    student = _states([[E3, E1, E2, E2]], [[True, True, False, False]])
    teacher = _states([[E3, E1, E2, E1]], [[True, True, True, False]])
    got = Alignment(weight=1).terms(_step(student, teacher))["alignment"].item()
    assert got == pytest.approx(0.5, abs=1e-6)


def test_alignment_smoothed_by_hand() -> None:
    """Two against two, costs 0 on the diagonal and 1 off it: P = 1/2 * 1/(1 + exp(-1/s)) on the diagonal."""
    s = 0.5
    got = Alignment(weight=1, smoothing=s).terms(_step(_states([[E3, E1, E2]]), _states([[E3, E1, E2]])))
    assert got["alignment"].item() == pytest.approx(math.exp(-1 / s) / (1 + math.exp(-1 / s)), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_the_plan_has_the_masses_it_should(n: int, m: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    cost = torch.rand(1, n + 2, m + 1, generator=random)
    rows, columns = torch.arange(n + 2)[None] < n, torch.arange(m + 1)[None] < m
    plan = transport(cost, rows, columns, smoothing=0.2, rounds=200)
    torch.testing.assert_close(plan.sum(dim=2), rows / n, atol=1e-4, rtol=0)
    torch.testing.assert_close(plan.sum(dim=1), columns / m, atol=1e-5, rtol=0)


def test_empty_prompt_by_hand() -> None:
    """Squared error 4 + 1 over squared norm 1 + 9."""
    empty = EmptyPromptStates(_states([[[1.0, 2.0], [3.0, 1.0]]]), _states([[[1.0, 0.0], [3.0, 0.0]]]))
    anything = _states([[E1]])
    got = EmptyPrompt(weight=3).terms(LossInput(anything, anything, anything, anything, False, empty=empty))
    assert got["empty_prompt"].item() == pytest.approx(3 * 5 / 10)


def _geometry(metric: list[list[float]]) -> Geometry:
    identity = torch.eye(2)
    layer = CrossAttention("a", 1, 1.0, torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]), identity, identity)
    return Geometry(torch.tensor(metric), (layer,))


TEACHER = _states([[[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]], [[True, True, False]])
STUDENT = _states([[[1.0, 1.0], [2.0, 1.0], [0.0, 1.0]]], [[True, True, False]])


def test_kv_metric_by_hand() -> None:
    """G = diag(1, 3). Errors (0, 1), (2, 0), (0, -1) give 3, 4, 3; the teacher's states 1, 3, 12."""
    step = _step(STUDENT, TEACHER, geometry=_geometry([[1.0, 0.0], [0.0, 3.0]]))
    tight = KvMetric(english=2, chinese_padding=1).terms(step)
    assert tight.keys() == {"kv_metric_en"}
    assert tight["kv_metric_en"].item() == pytest.approx(2 * 7 / 4)
    full = KvMetric(english=2, chinese_padding=1).terms(
        _step(STUDENT, TEACHER, full=True, geometry=_geometry([[1.0, 0.0], [0.0, 3.0]]))
    )
    assert full["kv_metric_en"].item() == pytest.approx(2 * 10 / 16)
    assert full["kv_metric_zh"].item() == pytest.approx(3 / 12)


def test_readout_by_hand() -> None:
    """Two slots (1, 0), (0, 1): the query (log 3, 0) reads (3/4, 1/4), the query 0 the mean; order does not matter."""
    geometry = _geometry([[1.0, 0.0], [0.0, 1.0]])
    slots = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    wanted = torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]])
    torch.testing.assert_close(attend(geometry.layers[0], slots), wanted)
    teacher, turned = _states(slots.tolist()), _states(slots.flip(1).tolist())
    still = Readout(english=1).terms(_step(turned, teacher, full=True, geometry=geometry))
    assert still.keys() == {"readout_zh", "readout_en"}
    assert still["readout_zh"].item() < 1e-12
    # A student that says (1, 0) twice is read as (1, 0) by both queries.
    same = _states([[[1.0, 0.0], [1.0, 0.0]]])
    got = Readout(chinese=2).terms(_step(same, teacher, full=True, geometry=geometry))["readout_zh"].item()
    assert got == pytest.approx(2 * (2 * 0.25**2 + 2 * 0.5**2) / (0.75**2 + 0.25**2 + 2 * 0.5**2))
    step = _step(same, teacher, full=True, geometry=geometry)
    drawn = [Readout(chinese=2, queries=1).terms(replace(step, draw=n))["readout_zh"].item() for n in (4, 7)]
    assert drawn == pytest.approx([2 * (2 * 0.25**2) / (0.75**2 + 0.25**2), 2 * (2 * 0.5**2) / (2 * 0.5**2)])
    rarely = replace(geometry, layers=(replace(geometry.layers[0], share=0.1),))  # a tenth differs between prompts
    tenfold = Readout(chinese=2).terms(_step(same, teacher, full=True, geometry=rarely))["readout_zh"].item()
    assert tenfold == pytest.approx(10 * got)
    assert Readout().terms(_step(same, teacher, full=False, geometry=geometry)) == {}


def test_translation_weighs_the_directions() -> None:
    anything = _states([[E1]])
    spoken = {"zh_from_zh": torch.tensor(2.0), "zh_from_en": torch.tensor(5.0)}
    step = LossInput(anything, anything, anything, anything, False, translation_losses=spoken)
    got = Translation(zh_from_zh=0.5, zh_from_en=0.1).terms(step)
    assert {name: term.item() for name, term in got.items()} == pytest.approx(
        {"translation_zh_from_zh": 1.0, "translation_zh_from_en": 0.5}
    )


def test_hidden_slot_policies() -> None:
    """On full steps: text alone, padding alone, and slots weighed by the teacher's norms 1, 1, 2."""
    step, l2 = _step(STUDENT, TEACHER, full=True), [0.5, 2.0, 0.5]
    for loss, wanted in (
        (Hidden(cosine=0, l2=1), sum(l2) / 3),
        (Hidden(cosine=0, l2=1, slots="text"), sum(l2[:2]) / 2),
        (Hidden(cosine=0, l2=1, slots="padding"), l2[2]),
        (Hidden(cosine=0, l2=1, by_norm=True), (l2[0] + l2[1] + 2 * l2[2]) / 4),
    ):
        assert loss.terms(step)["hidden_en"].item() == pytest.approx(wanted)
    all_text = _step(_states([[E1]]), _states([[E2]]), full=True)
    assert Hidden(slots="padding").terms(all_text)["hidden_en"].item() == 0


def test_without_aligned_tokens_only_full_steps_compare_slots() -> None:
    for full in (True, False):
        step = LossInput(
            STUDENT, TEACHER, STUDENT, TEACHER, full, aligned=False, geometry=_geometry([[1.0, 0], [0, 1.0]])
        )
        assert bool(Hidden().terms(step)) is full
        assert bool(KvMetric().terms(step)) is full


def test_schedule() -> None:
    """Nothing before 0.2, half way up at 0.3, all from 0.4, nothing from 0.8."""
    schedule = LossSchedule(start=0.2, ramp=0.2, stop=0.8)
    factors = [schedule.at(done) for done in (0, 0.19, 0.2, 0.3, 0.4, 0.79, 0.8, 0.99)]
    assert factors == pytest.approx([0, 0, 0, 0.5, 1, 1, 0, 0])
    assert LossSchedule().at(0) == 1
    config = LossesConfig(Pooled(english=0, schedule=LossSchedule(start=0.5)), None, None)
    anything = _states([[E1]]), _states([[E2]])
    for done, wanted in ((0.4, 0.0), (0.5, 1.0)):
        step = LossInput(anything[0], anything[1], anything[0], anything[1], False, progress=done)
        assert total(scheduled_terms(config.enabled, step)).item() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="0 <= start < stop <= 1"):
        LossSchedule(start=0.5, stop=0.5)


def _gradient(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of some rows under the new losses, and its gradient in a weight that all states pass through."""
    random = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 2, generator=random).requires_grad_(True)
    is_text = torch.tensor([[True, True, i < 3] for i in range(6)])
    student, teacher = (torch.randn(6, 3, 2, generator=random) for _ in range(2))
    ours = EncoderOutput(student[rows] @ weight, student[rows, 0] @ weight, is_text[rows])
    theirs = EncoderOutput(teacher[rows], teacher[rows, 0], is_text[rows])
    none = EncoderOutput(teacher[:1], teacher[:1, 0], is_text[:1])
    empty = EmptyPromptStates(EncoderOutput(student[:1] @ weight, none.pooled, none.text_mask), none)
    config = LossesConfig(
        None, Hidden(by_norm=True), None, Affinity(), Similarity(), Alignment(), EmptyPrompt(), KvMetric(1.0, 0.5),
        Readout(),
        unet_geometry=Path("unused"),
    )  # fmt: skip
    geometry, anchors = _geometry([[1.0, 0.2], [0.2, 3.0]]), torch.tensor([[0.6, 0.8]])
    step = LossInput(ours, theirs, ours, theirs, True, empty=empty, geometry=geometry, anchors=anchors)
    loss = total(scheduled_terms(config.enabled, step))
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return loss.detach(), weight.grad


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    loss, gradient = _gradient(slice(0, 6))
    parts = two_processes(lambda rank: _gradient(slice(3 * rank, 3 * rank + 3)), tmp_path)
    losses, gradients = zip(*parts, strict=True)
    assert not torch.allclose(losses[0], losses[1])
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), gradient)
