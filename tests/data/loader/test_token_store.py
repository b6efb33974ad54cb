"""The token store against the tokenizers, and the batches that are drawn from it."""

import mmap
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, processors

from data.cli import UserError
from data.loader import tokenise
from data.loader.batches import BatchDataset, BatchSchedule, TokenBatch, Vocabulary
from data.loader.mixture import MixtureStage
from data.loader.token_store import VIEWS, DomainTokens, TokenIds, TokenStore
from data.loader.tokenise import write_token_store
from distill import text_tower
from tests.distill.tiny_clip import captions, teacher_model, teacher_tokenizer, write_corpus, write_shard

SLOTS = 30
VOCABULARY = Vocabulary(pad_id=521, eos_id=521, max_length=SLOTS)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    tokenizer: Tokenizer = teacher_tokenizer().backend_tokenizer
    return tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def store(words: Tokenizer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_token_store(corpus, tmp_path_factory.mktemp("store"), words, _other(words), SLOTS)


@pytest.fixture(scope="module")
def train(store: Path) -> dict[str, DomainTokens]:
    return TokenStore(store).train


def _other(words: Tokenizer) -> Tokenizer:
    """A student's tokenizer that gives other ids: no text is anything but its end."""
    other: Tokenizer = Tokenizer.from_str(words.to_str())
    other.post_processor = processors.RobertaProcessing(("<|endoftext|>", 521), ("<|endoftext|>", 521), False, False)
    return other


def _cut(ids: list[int]) -> list[int]:
    return ids if len(ids) <= SLOTS else [*ids[: SLOTS - 1], ids[-1]]


def test_the_store_holds_what_the_tokenizers_say(train: dict[str, DomainTokens], words: Tokenizer) -> None:
    """Three views a row, in the corpus's order; a sequence that is too long is cut and keeps its end-of-text."""
    assert {name: len(rows) for name, rows in train.items()} == {"caption": 80, "dictionary": 14}
    rows = np.array([79, 0, 50, 0])  # both shards, out of order, twice
    pairs = [captions()[row] for row in rows]
    wanted = {
        "teacher_en": [_cut(words.encode(en).ids) for en, _ in pairs],
        "student_en": [_cut(_other(words).encode(en).ids) for en, _ in pairs],
        "student_zh": [_cut(_other(words).encode(zh).ids) for _, zh in pairs],
    }
    for view in VIEWS:
        assert [ids.tolist() for ids in train["caption"].gather(view, rows)] == wanted[view]
        assert train["caption"].lengths(view, rows).tolist() == [len(ids) for ids in wanted[view]]
    assert any(len(words.encode(zh).ids) > SLOTS for _, zh in captions())
    assert train["caption"].gather("student_zh", rows)[0][-1] == 521


def test_gather_over_many_record_batches(
    words: Tokenizer, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, DomainTokens]
) -> None:
    """Chunks of one row each read like one chunk of all."""
    for number, (pair, domain) in enumerate(zip(captions()[:9], "abaabbaab", strict=True)):
        write_shard(tmp_path / f"c/train/{number}.parquet", [pair], [domain])
    monkeypatch.setattr(tokenise, "_CHUNK_ROWS", 1)
    some = TokenStore(write_token_store(tmp_path / "c", tmp_path, words, words, SLOTS)).train["a"]
    rows = np.array([4, 1, 3, 0, 2, 4])
    wanted = [_cut(words.encode(captions()[place][0]).ids) for place in (7, 2, 6, 0, 3, 7)]
    assert [ids.tolist() for ids in some.gather("teacher_en", rows)] == wanted
    assert some.lengths("teacher_en", rows).tolist() == [len(ids) for ids in wanted]


def test_datasets_reads_the_store(store: Path, train: dict[str, DomainTokens]) -> None:
    rows = Dataset.from_file(str(store / "train" / "caption.arrow"))
    assert len(rows) == 80
    assert rows[7]["student_zh"] == train["caption"].gather("student_zh", np.array([7]))[0].tolist()


def test_padding() -> None:
    ids = TokenIds(np.array([5, 9, 5, 6, 9], np.int32), np.array([2, 3]))
    assert ids.pad(0).tolist() == [[5, 9, 0], [5, 6, 9]]
    assert ids.pad(9, 4).tolist() == [[5, 9, 9, 9], [5, 6, 9, 9]]


def test_a_second_call_reuses_and_a_changed_corpus_makes_another(
    words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    first = write_token_store(corpus, tmp_path / "store", words, words, SLOTS)
    with monkeypatch.context() as patch:
        patch.setattr(tokenise, "_encode", None)  # would fail if anything were tokenised again
        assert write_token_store(corpus, tmp_path / "store", words, words, SLOTS) == first
    others = {
        write_token_store(corpus, tmp_path / "store", words, words, SLOTS + 1),
        write_token_store(corpus, tmp_path / "store", words, _other(words), SLOTS),
    }
    write_shard(corpus / "train" / "part-00000.parquet", captions()[:49], ["caption"] * 49)
    others.add(write_token_store(corpus, tmp_path / "store", words, words, SLOTS))
    assert len({first, *others}) == 4


def test_padding_and_truncation_of_a_saved_tokenizer_do_not_enter_the_store(words: Tokenizer, tmp_path: Path) -> None:
    padding: Tokenizer = Tokenizer.from_str(words.to_str())
    padding.enable_padding(length=30)
    padding.enable_truncation(5)
    corpus = write_corpus(tmp_path / "corpus")
    rows = TokenStore(write_token_store(corpus, tmp_path, padding, padding, SLOTS)).train["caption"]
    assert rows.gather("teacher_en", np.array([0]))[0].tolist() == words.encode(captions()[0][0]).ids


def test_killed_half_way_nothing_counts(words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 while the held-out slice is written: the next call goes on with that shard and is right."""
    corpus, store = write_corpus(tmp_path / "corpus"), tmp_path / "store"
    write = tokenise._tokenise_shard

    def die(shard: Path, parts: Path, how: tokenise.Tokenisation) -> Iterator[int]:
        for count in write(shard, parts, how):
            if shard.parent.name == "valid":
                os.kill(os.getpid(), signal.SIGKILL)
            yield count

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(tokenise, "_tokenise_shard", die)
        write_token_store(corpus, store, words, words, SLOTS)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert list(store.iterdir()), "it did die half-way"
    assert [path.suffix for path in store.iterdir()] == [".parts"]
    here, elsewhere = socket.gethostname(), store / f".other.partial-elsewhere-{child}"
    alive = [store / f".other.partial-{here}-{os.getppid()}", elsewhere, store / f"other.partial-{os.getppid()}"]
    for folder in alive:
        folder.mkdir()
    written: list[str] = []

    def noted(shard: Path, parts: Path, how: tokenise.Tokenisation) -> Iterator[int]:
        written.append(shard.name)
        return write(shard, parts, how)

    monkeypatch.setattr(tokenise, "_tokenise_shard", noted)
    again = write_token_store(corpus, store, words, words, SLOTS)
    assert written == ["part-00000.parquet"], "the held-out slice alone"
    assert _bytes(again) == _bytes(write_token_store(corpus, tmp_path / "whole", words, words, SLOTS))
    assert {name: len(rows) for name, rows in TokenStore(again).valid.items()} == {"caption": 10}
    left = {path for path in store.iterdir() if ".partial-" in path.name}
    assert left == {*alive}, "what a dead writer left is gone; what a living one writes, or another machine's, stays"


def _bytes(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*.arrow")}


def test_two_processes_write_the_bytes_of_one(words: Tokenizer, corpus: Path, store: Path, tmp_path: Path) -> None:
    other = write_token_store(corpus, tmp_path, words, _other(words), SLOTS, processes=2)
    assert _bytes(other) == _bytes(store)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_a_student_with_the_teachers_english_tokenises_ascii_once(
    words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes; the student's tokenizer reads Chinese, and English that is not ASCII."""
    pairs = [("a cat", "猫"), ("a café", "咖啡馆"), ("the 猫", "猫"), ("a dog\x7f", "狗")]
    write_shard(tmp_path / "c" / "train" / "0.parquet", pairs, ["a", "b", "a", "a"])
    one = write_token_store(tmp_path / "c", tmp_path / "one", words, words, SLOTS)
    read: list[str] = []
    encode = tokenise._encode

    def noted(tokenizer: Tokenizer, texts: list[str], max_length: int) -> list[list[int]]:
        read.extend(texts)
        return encode(tokenizer, texts, max_length)

    monkeypatch.setattr(tokenise, "_encode", noted)
    other = write_token_store(tmp_path / "c", tmp_path / "other", words, words, SLOTS, same_ascii=True)
    assert _bytes(one) == _bytes(other)
    assert Counter(read) == Counter([text for pair in pairs for text in pair] + ["a café", "the 猫"])


def test_a_corpus_without_shards_is_refused(words: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Parquet shards.*python -m data\.build"):
        write_token_store(tmp_path, tmp_path / "store", words, words, SLOTS)


SHARES = {"caption": 0.75, "dictionary": 0.25}


def _batches(train: dict[str, DomainTokens], schedule: BatchSchedule, rank: int = 0, ranks: int = 1) -> BatchDataset:
    return BatchDataset(train, [MixtureStage(0, SHARES)], schedule, VOCABULARY, VOCABULARY, rank=rank, ranks=ranks)


def _equal(one: TokenBatch, other: TokenBatch) -> bool:
    return one.fixed_length == other.fixed_length and all(
        torch.equal(getattr(one, view), getattr(other, view)) for view in VIEWS
    )


def test_a_batch_is_a_pure_function_of_seed_and_step(train: dict[str, DomainTokens]) -> None:
    schedule = BatchSchedule(seed=1, batch_size=8, window=3, full_share=0.3)
    one = _batches(train, schedule)
    sequence = [one[step] for step in range(14)]
    for step in (13, 2, 7, 0, 12, 2):
        assert _equal(_batches(train, schedule)[step], sequence[step])
        assert _equal(one[step], sequence[step])
    other = _batches(train, BatchSchedule(seed=2, batch_size=8, window=3, full_share=0.3))
    assert sum(_equal(other[step], sequence[step]) for step in range(14)) == 0


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_partition_the_global_batch_in_order(train: dict[str, DomainTokens], ranks: int) -> None:
    """And pad alike, to the longest of the global batch."""
    schedule = BatchSchedule(seed=1, batch_size=8, window=3, full_share=0.3)
    for step in range(6):
        parts = [_batches(train, schedule, rank, ranks)[step] for rank in range(ranks)]
        whole = _batches(train, schedule)[step]
        for view in VIEWS:
            assert torch.equal(torch.cat([getattr(part, view) for part in parts]), getattr(whole, view))
    with pytest.raises(ValueError, match=r"train\.batch_size: 8 pairs do not divide among 3"):
        _batches(train, schedule, 0, 3)


def test_every_row_comes_once_an_epoch_and_domains_keep_their_shares(train: dict[str, DomainTokens]) -> None:
    """14 dictionary rows at a quarter of 8 a step: seven steps an epoch, every row once, to within a pair or two."""
    batches = _batches(train, BatchSchedule(seed=5, batch_size=8, window=7, full_share=0))
    entries = {tuple(ids.tolist()): row for row, ids in enumerate(_all(train["dictionary"], "student_zh"))}
    drawn = [
        [row for ids in batches[step].student_zh.tolist() if (row := entries.get(_stripped(ids))) is not None]
        for step in range(70)
    ]
    assert len(entries) == 14
    flat = [row for step in drawn for row in step]
    assert abs(len(flat) - 140) <= 3
    assert max(Counter(flat).values()) - min(Counter(flat).values()) <= 1
    assert abs(len([row for step in drawn[:35] for row in step]) - 70) <= 3


def test_one_domain_gives_every_row_once_an_epoch(train: dict[str, DomainTokens]) -> None:
    schedule = BatchSchedule(seed=0, batch_size=8, window=5, full_share=0)
    batches = BatchDataset(train, [MixtureStage(0, {"caption": 1.0})], schedule, VOCABULARY, VOCABULARY)
    for epoch in range(2):
        rows = Counter(_stripped(ids) for step in range(10) for ids in batches[10 * epoch + step].student_en.tolist())
        assert rows == Counter(tuple(ids.tolist()) for ids in _all(train["caption"], "student_en"))


def test_a_later_stage_draws_by_its_own_shares_and_resumes_in_the_middle(train: dict[str, DomainTokens]) -> None:
    schedule = BatchSchedule(seed=3, batch_size=8, window=5, full_share=0)
    stages = [MixtureStage(0, {"caption": 1.0}), MixtureStage(10, {"dictionary": 1.0})]
    batches = BatchDataset(train, stages, schedule, VOCABULARY, VOCABULARY)
    captions, news = (
        {_stripped(ids.tolist()) for ids in _all(train[name], "student_en")} for name in ("caption", "dictionary")
    )
    assert {_stripped(ids) for step in range(10) for ids in batches[step].student_en.tolist()} <= captions
    assert {_stripped(ids) for step in range(10, 20) for ids in batches[step].student_en.tolist()} <= news
    assert _equal(BatchDataset(train, stages, schedule, VOCABULARY, VOCABULARY)[13], batches[13])


def test_full_steps_lie_evenly(train: dict[str, DomainTokens]) -> None:
    """At a share of 0.3: of any ten steps three, never two in a row; the others are only as wide as needed."""
    batches = _batches(train, BatchSchedule(seed=1, batch_size=8, window=4, full_share=0.3))
    steps = [batches[step] for step in range(40)]
    full = [step.fixed_length for step in steps]
    assert all(sum(full[start : start + 10]) == 3 for start in range(30))
    assert not any(a and b for a, b in pairwise(full))
    for step in steps:
        widths = {view: getattr(step, view).shape[1] for view in VIEWS}
        if step.fixed_length:
            assert set(widths.values()) == {SLOTS}
        else:
            assert widths["student_zh"] == max(len(_stripped(ids)) for ids in step.student_zh.tolist())


def test_a_window_is_sorted_by_length(train: dict[str, DomainTokens]) -> None:
    """Bucketed batches pad less than half of what batches drawn at random would."""

    def padding(window: int) -> int:
        batches = _batches(train, BatchSchedule(seed=1, batch_size=8, window=window, full_share=0))
        return sum(len(ids) - len(_stripped(ids)) for step in range(24) for ids in batches[step].student_zh.tolist())

    assert padding(12) < padding(1) / 2


def test_short_and_long_batches_come_in_another_order_in_every_window(train: dict[str, DomainTokens]) -> None:
    batches = _batches(train, BatchSchedule(seed=1, batch_size=8, window=6, full_share=0))
    lengths = [[int((batches[6 * w + k].student_zh != 521).sum()) for k in range(6)] for w in range(8)]
    assert len({tuple(np.argsort(window, kind="stable")) for window in lengths}) >= 6


def test_tiny_shares_and_tiny_windows(train: dict[str, DomainTokens]) -> None:
    """Many more domains than a window has pairs: each still gets its share (and no count goes below zero)."""
    names = {f"d{number:02}": train["caption"] for number in range(30)}
    schedule = BatchSchedule(seed=0, batch_size=2, window=2, full_share=0)
    batches = BatchDataset(names, [MixtureStage(0, dict.fromkeys(names, 1 / 30))], schedule, VOCABULARY, VOCABULARY)
    assert sum(len(batches[step].student_zh) for step in range(60)) == 120


@torch.no_grad()
def test_tight_states_equal_those_on_all_slots(train: dict[str, DomainTokens]) -> None:
    model = text_tower.optimize_for_device(teacher_model(522), on_cpu=True)
    tight = _batches(train, BatchSchedule(seed=1, batch_size=8, window=3, full_share=0))[0]
    full = _batches(train, BatchSchedule(seed=1, batch_size=8, window=3, full_share=1))[0]
    assert tight.teacher_en.shape[1] < full.teacher_en.shape[1] == SLOTS
    ours, theirs = text_tower.encode_ids(model, tight.teacher_en), text_tower.encode_ids(model, full.teacher_en)
    torch.testing.assert_close(ours.pooled, theirs.pooled, atol=2e-6, rtol=0)
    slots = tight.teacher_en.shape[1]
    torch.testing.assert_close(ours.hidden_states, theirs.hidden_states[:, :slots], atol=2e-5, rtol=0)


def _all(domain: DomainTokens, view: str) -> list[np.ndarray]:
    return domain.gather(view, np.arange(len(domain)))


def _stripped(ids: list[int]) -> tuple[int, ...]:
    """Up to the first end-of-text that is not the first id."""
    return tuple(ids[: ids.index(521, 1) + 1])


@pytest.fixture
def ragged(tmp_path: Path) -> tuple[DomainTokens, list[dict[str, list[int]]]]:
    """1,000 rows in record batches of several sizes, empty rows among them, and what they hold."""
    draw = np.random.default_rng(0)
    rows = [{view: draw.integers(0, 9, draw.integers(0, 40)).tolist() for view in VIEWS} for _ in range(1000)]
    schema = pa.schema([(view, pa.large_list(pa.int32())) for view in VIEWS])
    start = 0
    with pa.ipc.new_stream(str(tmp_path / "rows.arrow"), schema) as writer:
        for count in (1, 63, 64, 65, 500, 307):
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start : start + count], schema))
            start += count
    return DomainTokens(tmp_path / "rows.arrow"), rows


def test_a_row_is_found_from_the_anchor_before_it(
    ragged: tuple[DomainTokens, list[dict[str, list[int]]]],
) -> None:
    tokens, rows = ragged
    order = np.random.default_rng(1).permutation(1000)
    for view in VIEWS:
        assert [ids.tolist() for ids in tokens.gather(view, order)] == [rows[row][view] for row in order]


def test_read_ahead_covers_the_rows_and_little_more(
    ragged: tuple[DomainTokens, list[dict[str, list[int]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole pages, each once; every id of the rows lies in them, and no page holds none."""
    tokens, _ = ragged
    advised: list[tuple[int, int]] = []

    class Recorder:
        def madvise(self, _: int, start: int, length: int) -> None:
            advised.append((start, start + length))

        def __len__(self) -> int:
            return 4 * len(tokens._words)

    monkeypatch.setattr(tokens, "_map", Recorder())
    rows = np.array([0, 700, 701, 999])
    tokens.read_ahead("student_zh", rows)
    assert all(start % mmap.PAGESIZE == 0 for start, _ in advised)
    assert all(stop <= next_start for (_, stop), (next_start, _) in pairwise(advised))
    base = tokens._words.ctypes.data
    for ids in tokens.gather("student_zh", rows):
        first = ids.ctypes.data - base
        assert not len(ids) or any(start <= first and first + 4 * len(ids) <= stop for start, stop in advised)
    assert sum(stop - start for start, stop in advised) <= 2 * len(rows) * mmap.PAGESIZE
