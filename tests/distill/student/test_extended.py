"""The extended student: English of the teacher, new rows for Chinese."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from data.loader.token_store import DomainTokens, TokenStore
from data.loader.tokenise import write_token_store
from distill import text_tower
from distill.loading import load_clip_tokenizer
from distill.student.chinese_bpe import VocabularyConfig, spell
from distill.student.extended import ExtendedConfig, ExtendedStudent, Freeze
from distill.text_tower import load_pretrained
from distill.train import checkpoint
from tests.distill.tiny_clip import SLOTS, teacher_model, teacher_tokenizer

ENGLISH = ["a red cat on the grass", "", "naïve ❤️ 42!", "the dog, the dog"]
CHINESE = ["草地上的一只红色的猫", "红色，蓝色。", "a 猫 and a 狗"]


@pytest.fixture(scope="module")
def tokens(teacher: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "tokenizer"
    ExtendedConfig(VocabularyConfig(12, 1)).build_tokenizer(load_pretrained(str(teacher)), corpus, folder)
    return folder


def _student(
    teacher: Path,
    tokens: Path,
    corpus: Path | None = None,
    store: Path = Path(),
    freeze: Freeze = "embeddings",
) -> ExtendedStudent:
    pretrained, words = load_pretrained(str(teacher)), load_clip_tokenizer(str(tokens), "out_dir")
    pairs = dict[str, DomainTokens]()
    if corpus:
        english, chinese = pretrained.tokenizer.backend_tokenizer, words.backend_tokenizer
        pairs = TokenStore(write_token_store(corpus, store, english, chinese, SLOTS)).train
    return ExtendedConfig(VocabularyConfig(12, 1), freeze).build(pretrained, words, pairs, on_cpu=True)


def _ids(folder: Path, texts: list[str]) -> torch.Tensor:
    words = load_clip_tokenizer(str(folder), "teacher")
    ids: torch.Tensor = words(texts, padding="max_length", max_length=SLOTS, return_tensors="pt")["input_ids"]
    return ids


@torch.no_grad()
def test_at_step_0_english_is_bit_identical_to_the_teachers(
    teacher: Path, tokens: Path, corpus: Path, tmp_path: Path
) -> None:
    student = _student(teacher, tokens, corpus, tmp_path)
    original = text_tower.optimize_for_device(text_tower.load_tower(str(teacher), "t"), True)
    ids = _ids(tokens, ENGLISH)
    assert torch.equal(ids, _ids(teacher, ENGLISH))
    ours, theirs = student(ids), text_tower.encode_ids(original, ids)
    assert torch.equal(ours.hidden_states, theirs.hidden_states)
    assert torch.equal(ours.pooled, theirs.pooled)


@torch.no_grad()
def test_the_fast_path_is_the_published_function(teacher: Path) -> None:
    """Eager attention and the fused QuickGELU against transformers' own."""
    ids = _ids(teacher, ENGLISH)
    fast = text_tower.encode_ids(
        text_tower.optimize_for_device(text_tower.load_tower(str(teacher), "t"), on_cpu=True), ids
    )
    stock = text_tower.load_tower(str(teacher), "t")(input_ids=ids)
    assert torch.allclose(fast.hidden_states, stock.last_hidden_state, atol=1e-5)
    assert torch.allclose(fast.pooled, stock.text_embeds, atol=1e-5)


@torch.no_grad()
def test_stock_equals_the_student(teacher: Path, tokens: Path, tmp_path: Path) -> None:
    student = _student(teacher, tokens)
    student.embedding.new.normal_()
    student.to_clip().save_pretrained(tmp_path)
    stock = text_tower.load_tower(str(tmp_path), "student")
    assert stock.config.eos_token_id == len(teacher_tokenizer()) - 1
    assert stock.config.vocab_size == len(load_clip_tokenizer(str(tokens), "t")) > len(teacher_tokenizer())
    for texts in (ENGLISH, CHINESE):
        ids = _ids(tokens, texts)
        ours, theirs = student(ids), stock(input_ids=ids)
        assert torch.allclose(ours.hidden_states, theirs.last_hidden_state, atol=1e-5)
        assert torch.allclose(ours.pooled, theirs.text_embeds, atol=1e-5)


@torch.no_grad()
def test_twins_read_the_same(teacher: Path, tokens: Path) -> None:
    student, ids = _student(teacher, tokens), load_clip_tokenizer(str(tokens), "t").get_vocab()
    student.embedding.new.normal_()
    table = student.output_table().detach()
    assert torch.equal(table[ids[spell("，")]], student.embedding.teacher[ids[","]])
    assert torch.equal(table[ids[spell("猫") + "</w>"]], table[ids[spell("猫")]])
    assert not torch.equal(table[ids[spell("狗")]], table[ids[spell("猫")]])


def test_the_projection_trains_where_it_is_wanted(teacher: Path, tokens: Path) -> None:
    pretrained, config = load_pretrained(str(teacher)), ExtendedConfig(VocabularyConfig(12, 1), train_projection=True)
    student = config.build(pretrained, config.load_tokenizer(tokens, "t"), {}, on_cpu=True)
    frozen = {name for name, weight in student.named_parameters() if not weight.requires_grad}
    assert frozen == {"text.text_model.embeddings.token_embedding.teacher"}


@pytest.mark.parametrize("freeze", ["none", "embeddings", "transformer"])
def test_freeze_trains_exactly_what_it_says(teacher: Path, tokens: Path, freeze: Freeze) -> None:
    student = _student(teacher, tokens, freeze=freeze)
    names = {name for name, _ in student.named_parameters()}
    new = "text.text_model.embeddings.token_embedding.new"
    old = "text.text_model.embeddings.token_embedding.teacher"
    frozen = {"text.text_projection.weight"}  # image features lie in its space
    assert {new, old, *frozen} < names
    wanted = {"none": names - frozen, "embeddings": names - frozen - {old}, "transformer": {new}}[freeze]
    assert checkpoint.trainable(student).keys() == wanted
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    english, optimizer = _ids(tokens, ENGLISH), torch.optim.AdamW(checkpoint.trainable(student).values(), lr=0.01)
    start = student(english).hidden_states.detach()
    for _ in range(3):
        optimizer.zero_grad()
        loss = student(_ids(tokens, CHINESE)).pooled.square().sum() + student(english).hidden_states.square().sum()
        loss.backward()
        optimizer.step()
    moved = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == wanted
    assert torch.equal(student(english).hidden_states, start) is (freeze == "transformer")


def test_a_legacy_end_of_text_becomes_explicit(teacher: Path, tokens: Path, tmp_path: Path) -> None:
    """The first CLIP configs say 2: transformers then pools at the largest id, wrong once ids lie above it."""
    model = teacher_model(len(teacher_tokenizer()))
    model.config.eos_token_id = 2
    model.save_pretrained(tmp_path)
    teacher_tokenizer().save_pretrained(tmp_path)
    student = _student(tmp_path, tokens)
    ids = _ids(tokens, CHINESE)
    with torch.no_grad():
        assert torch.equal(student(ids).pooled, _student(teacher, tokens)(ids).pooled)
        assert torch.allclose(student.to_clip()(input_ids=ids).text_embeds, student(ids).pooled, atol=1e-5)


def test_new_rows_start_at_their_translations(teacher: Path, tokens: Path, corpus: Path, tmp_path: Path) -> None:
    """The rows nearest to new ones are those of their translations; all have mean and spread of the teacher's."""
    student, ids = _student(teacher, tokens, corpus, tmp_path), load_clip_tokenizer(str(tokens), "t").get_vocab()
    old, new = student.embedding.teacher.detach(), student.embedding.new.detach()
    table = student.output_table().detach()
    for word, english in (("猫", "cat</w>"), ("狗", "dog</w>")):
        nearest = F.cosine_similarity(table[ids[spell(word)]] - old.mean(dim=0), old - old.mean(dim=0)).argmax()
        assert nearest == ids[english], word
    assert torch.allclose(new.std(dim=0), old.std(dim=0), rtol=0.5)
    assert torch.equal(new, _student(teacher, tokens, corpus, tmp_path).embedding.new), "the same every time"
