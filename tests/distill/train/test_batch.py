"""What the towers read: on full steps the slots that no loss looks at are left out, and nothing changes by that."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from data.loader.batches import TokenBatch
from distill import loading
from distill.losses import (
    Affinity,
    Alignment,
    Contrastive,
    Hidden,
    KvMetric,
    LossesConfig,
    Pooled,
    Readout,
    Translation,
)
from distill.losses.translation import DecoderConfig
from distill.student.chinese_bpe import VocabularyConfig
from distill.student.extended import ExtendedConfig
from distill.text_tower import Pretrained, load_pretrained, text_mask
from distill.train.batch import BatchLoader, Teacher, anchor_vectors
from distill.train.config import parse_config
from distill.train.main import make_accelerator
from distill.train.setup import build_setup, prepare_run
from distill.train.task import Task, backward
from tests.distill.tiny_clip import SLOTS, run_options, write_config

ENGLISH = ["a red cat on the grass", "a dog", "the blue bird on the sea in the snow", "cat"]
CHINESE = ["草地上的一只红色的猫", "狗", "雪地", "大海上的一只白色的鸟"]


class _One:
    """One batch, whatever the step; `full` at max length."""

    def __init__(self, teacher: Pretrained, words: PreTrainedTokenizerFast, full: bool = True) -> None:
        self._full, padding = full, "max_length" if full else "longest"
        self._views = [
            words(texts, padding=padding, max_length=SLOTS, return_tensors="pt")["input_ids"]
            for words, texts in ((teacher.tokenizer, ENGLISH), (words, ENGLISH), (words, CHINESE))
        ]

    def __getitem__(self, step: int) -> TokenBatch:
        teacher_en, student_en, student_zh = self._views
        zh, en = (int(text_mask(view, 521).sum(dim=1).max()) for view in (student_zh, teacher_en))
        return TokenBatch(teacher_en, student_en, student_zh, self._full, zh, en, 0)


@pytest.fixture(scope="module")
def words(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    config = ExtendedConfig(VocabularyConfig(12, 1))
    config.build_tokenizer(load_pretrained(str(teacher)), corpus, folder)
    return loading.load_clip_tokenizer(str(folder), "t")


@pytest.mark.parametrize("every", [1, 2])
def test_slots_that_no_loss_looks_at_change_nothing(teacher: Path, words: PreTrainedTokenizerFast, every: int) -> None:
    """Terms and gradients, with every loss that does not ask for Chinese padding."""
    losses = LossesConfig(
        Pooled(mse=1),
        Hidden(l1=1),
        Contrastive(),
        Affinity(),
        alignment=Alignment(),
        translation=Translation(en_from_zh=1),
    )
    assert not losses.uses_zh_padding
    found = []
    for padding in (False, True):
        pretrained = load_pretrained(str(teacher))
        student = ExtendedConfig(VocabularyConfig(12, 1)).build(pretrained, words, {}, on_cpu=True)
        readings = BatchLoader(_One(pretrained, words), every, padding)  # type: ignore[arg-type]
        torch.manual_seed(0)
        with torch.no_grad():  # else its English is the teacher's, and every slot is right
            for weight in student.parameters():
                weight.add_(0.05 * torch.randn(weight.shape))
        task = Task(student, losses)
        reading = readings[0]
        widths = {view.shape[1] for view in (reading.student_zh_ids, reading.teacher_ids)}
        assert (widths == {SLOTS}) is padding
        assert reading.student_en_ids.shape == (4 // every, SLOTS)
        terms = task(reading, Teacher(pretrained, torch.device("cpu")).targets(reading))
        sum(terms.values()).backward()
        found.append((terms, {name: weight.grad for name, weight in task.trainable().items()}))
    (terms, gradients), (all_terms, all_gradients) = found
    assert terms.keys() == all_terms.keys()
    assert len(terms) == 10
    for name, term in terms.items():
        torch.testing.assert_close(term, all_terms[name], msg=name)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, all_gradients[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("full", [False, True])
def test_states_that_no_loss_looks_at_change_nothing(
    teacher: Path, words: PreTrainedTokenizerFast, every: int, full: bool
) -> None:
    """Terms and gradients, with every loss that looks at the pooled states of the Chinese alone."""
    translation = Translation(en_from_zh=1, decoder=DecoderConfig(every=2))
    losses = LossesConfig(
        Pooled(mse=1), Hidden(l1=1), Contrastive(), Affinity(), kv_metric=KvMetric(), translation=translation
    )
    assert not losses.uses_zh_states
    pretrained, found = load_pretrained(str(teacher)), []
    torch.manual_seed(0)
    student = ExtendedConfig(VocabularyConfig(12, 1)).build(pretrained, words, {}, on_cpu=True)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    task, tower = Task(student, losses), Teacher(pretrained, torch.device("cpu"))
    for pooled_zh, tokens_at_once in ((False, None), (True, None), (True, 20)):
        one = _One(pretrained, words, full)
        batch = BatchLoader(one, every, zh_padding=False, pooled_zh=pooled_zh)[0]  # type: ignore[arg-type]
        targets = tower.targets(batch, tokens_at_once)
        assert (targets.pairs.hidden_states.numel() == 0) is pooled_zh
        terms = backward(task, batch, targets, 0.0, tokens_at_once, nullcontext)
        found.append((terms, {name: weight.grad for name, weight in task.trainable().items()}))
        task.zero_grad()
    (terms, gradients), *pooled = found
    assert len(terms) == 9
    for pooled_terms, pooled_gradients in pooled:
        torch.testing.assert_close(pooled_terms, terms)
        torch.testing.assert_close(pooled_gradients, gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "pooled"), [({}, True), ({"losses": {"alignment": {}}}, False), ({"train": {"compile": True}}, False)]
)
def test_a_run_on_a_cpu_leaves_them_out(
    changes: dict[str, Any], pooled: bool, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    tree = run_options(teacher, corpus, tmp_path / "run")
    for key, values in changes.items():
        tree[key] = {**tree.get(key, {}), **values}
    run = parse_config(write_config(tmp_path / "c.yaml", tree))
    prepared = prepare_run(run, 1)
    setup = build_setup(run, make_accelerator(run), prepared.store, prepared.pretrained)
    assert setup.loader[0].pooled_zh is setup.loader[1].pooled_zh is pooled


@pytest.mark.parametrize(
    ("losses", "states"),
    [
        (LossesConfig(), False),
        (LossesConfig(hidden=Hidden(chinese=1, slots="text")), True),
        (LossesConfig(alignment=Alignment()), True),
        (LossesConfig(translation=Translation(en_from_zh=1)), False),
        (LossesConfig(kv_metric=KvMetric(chinese_padding=1)), True),
        (LossesConfig(readout=Readout(), unet_geometry=Path("g")), True),
        (LossesConfig(readout=Readout(chinese=0, english=1), unet_geometry=Path("g")), False),
    ],
)
def test_which_losses_look_at_chinese_states(losses: LossesConfig, states: bool) -> None:
    assert losses.uses_zh_states is states


@pytest.mark.parametrize(
    ("losses", "reads"),
    [
        (LossesConfig(), False),
        (LossesConfig(hidden=Hidden(chinese=1)), True),
        (LossesConfig(hidden=Hidden(chinese=1, slots="text")), False),
        (LossesConfig(kv_metric=KvMetric(), unet_geometry=Path("g")), False),
        (LossesConfig(kv_metric=KvMetric(chinese_padding=1), unet_geometry=Path("g")), True),
        (LossesConfig(readout=Readout(), unet_geometry=Path("g")), True),
        (LossesConfig(readout=Readout(chinese=0, english=1), unet_geometry=Path("g")), False),
    ],
)
def test_which_losses_look_at_chinese_padding(losses: LossesConfig, reads: bool) -> None:
    assert losses.uses_zh_padding is reads


def test_anchors_come_from_a_whole_window(teacher: Path) -> None:
    """Eight of four batches of eight: two of each, evenly; of more than there are, all of the next window, too."""
    batches = [torch.full((8, 3), 7 * step) + torch.arange(8)[:, None] for step in range(20)]
    loader: Any = [SimpleNamespace(teacher_ids=ids) for ids in batches]
    tower = Teacher(load_pretrained(str(teacher)), torch.device("cpu"))
    few, many = (anchor_vectors(loader, tower, 10, count, 4, None) for count in (8, 40))
    for vectors, rows in ((few, [ids[::4] for ids in batches[10:14]]), (many, batches[10:15])):
        torch.testing.assert_close(vectors, F.normalize(tower(torch.cat(list(rows))).pooled, dim=-1))
