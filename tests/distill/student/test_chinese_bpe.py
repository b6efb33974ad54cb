"""The extended tokenizer: English stays, Chinese gets short."""

import gzip
import itertools
import json
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from data.clean.characters import DELETE, normalisation_table
from data.cli import UserError
from distill.loading import load_clip_tokenizer
from distill.student.chinese_bpe import (
    FULLWIDTH_TO_ASCII,
    HAN_WORD,
    VocabularyConfig,
    extend_tokenizer,
    spell,
    split_at_chinese,
)
from distill.student.extended import tied_embeddings
from distill.student.tokenizer import invisible_characters, normalization_map
from tests.distill.tiny_clip import captions, teacher_tokenizer

# Han, and what shares its first two bytes: CJK punctuation (E3 80), full-width ASCII (EF BC), hexagrams; and forms of
# Chinese that are folded: full-width letters, vertical and small punctuation, squared characters.
_CHINESE = regex.compile(
    r"[\p{Han}\u2e80-\u303f\uff00-\uff65\u4dc0-\u4dff\ufe10-\ufe1f\ufe30-\ufe6f\uffe0-\uffe6\u3190-\u319f\U0001f200-\U0001f2ff]"
)
_CODE = "def f(x): return x[1:] != {'a': 0} # TODO\n\t<div class=\"x\">&amp;</div> SELECT * FROM t WHERE a >= 1e-5;"


def new_token_texts(tokenizer: PreTrainedTokenizerFast, teacher_size: int) -> dict[int, str]:
    """The text of every token with an id >= `teacher_size` that spells whole characters, by id; byte-level BPE."""
    symbols = {symbol: byte for byte, symbol in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
    texts = {}
    for token, index in tokenizer.get_vocab().items():
        if index >= teacher_size:
            try:
                texts[index] = bytes(symbols[c] for c in token.removesuffix("</w>")).decode()
            except UnicodeDecodeError:
                continue  # an intermediate merge: the first bytes of a character
    return texts


@pytest.fixture(scope="module")
def teacher_words() -> PreTrainedTokenizerFast:
    return teacher_tokenizer()


@pytest.fixture(scope="module")
def student_words(teacher_words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return extend_tokenizer(teacher_words, [zh for _, zh in captions()] * 2, ["草地", "红色"], VocabularyConfig(20, 1))


def _same(
    teacher: PreTrainedTokenizerFast,
    student: PreTrainedTokenizerFast,
    texts: list[str],
    others: list[str] | None = None,
) -> None:
    ours = student.backend_tokenizer.encode_batch_fast(texts)
    theirs = teacher.backend_tokenizer.encode_batch_fast(others or texts)
    for text, mine, yours in zip(texts, ours, theirs, strict=True):
        assert mine.ids == yours.ids, text


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.text(st.characters(categories=("L", "M", "N", "P", "S")), max_size=12),
            st.sampled_from(
                ["❤️", "👩‍🚀", "☕️", "café", "naïve", "ひらがなカタカナ", "한국어", "１", "3.14", _CODE, "ﾊﾝｶｸ"]
            ),
        ),
        max_size=6,
    )
)
def test_text_without_chinese_keeps_the_teachers_ids(
    teacher_words: PreTrainedTokenizerFast, student_words: PreTrainedTokenizerFast, parts: list[str]
) -> None:
    _same(teacher_words, student_words, [_CHINESE.sub("", " ".join(parts)), _CHINESE.sub("", "".join(parts))])


def test_every_new_merge_begins_with_a_chinese_lead_byte(
    teacher_words: PreTrainedTokenizerFast, student_words: CLIPTokenizer
) -> None:
    old = {tuple(pair) for pair in _model(teacher_words)["merges"]}
    new = [tuple(pair) for pair in _model(student_words)["merges"]]
    assert [pair for pair in new if pair in old] == new[: len(old)]
    _check_leads(new[len(old) :])


def test_characters_outside_the_basic_blocks_stay_in_bytes(teacher_words: PreTrainedTokenizerFast) -> None:
    """A radical (E2), a compatibility form (EF A4) and Extension B (F0) share bytes with what is not Chinese."""
    student = extend_tokenizer(teacher_words, ["⺀⺀猫", "﨎﨎猫", "𠀀𠀀猫"] * 9, [], VocabularyConfig(9, 1))
    _same(teacher_words, student, ["⺀", "﨎", "𠀀", "⺁ 😀 ♥"])
    assert len(student("猫")["input_ids"]) == 3


def test_chinese_gets_short(teacher_words: PreTrainedTokenizerFast, student_words: PreTrainedTokenizerFast) -> None:
    assert len(teacher_words("红色的猫，草地。")["input_ids"]) == 2 + 8 * 3
    tokens = [str(student_words.convert_ids_to_tokens(i)) for i in student_words("红色的猫，草地。")["input_ids"][1:-1]]
    wanted = ["红色", "的", "猫</w>", "，</w>", "草地</w>", "。</w>"]
    assert len(tokens) <= 6
    assert "".join(tokens) == "".join(spell(w.removesuffix("</w>")) + "</w>" * w.endswith("</w>") for w in wanted)


def test_english_words_that_touch_chinese_are_whole(
    teacher_words: PreTrainedTokenizerFast, student_words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """大cat左侧 is read as 大 cat 左侧 is; so it is after a round trip, and the text comes back with spaces."""
    student_words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for glued, spaced in (
        ("草地cat红色", "草地 cat 红色"),
        ("a red猫，8k草地", "a red 猫，8k 草地"),
        ("cat々dog㐀", "cat 々 dog 㐀"),
    ):
        assert student_words(glued).input_ids == student_words(spaced).input_ids == again(glued).input_ids
    cat = teacher_words("cat").input_ids[1:-1]
    assert student_words("草地cat红色").input_ids[2:-2] == cat
    assert again.decode(again("草地cat红色").input_ids, skip_special_tokens=True) == "草地 cat 红色"
    assert again.batch_decode([[], again("").input_ids], skip_special_tokens=True) == ["", ""]


def test_one_form_of_writing(
    student_words: PreTrainedTokenizerFast, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Traditional, Taiwan's and Hong Kong's characters and full-width letters are read as what the corpora have."""
    student_words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for written, read in (
        ("戴帽子拿劍的貓", "戴帽子拿剑的猫"), ("看著衞星，粧", "看着卫星，妆"), ("８Ｋ高清 ｃａｔ", "8k高清 cat"),
        ("什么，什麼", "什么，什么"), ("一隻cat在草地", "一只cat在草地"), ("揹著牠", "背着它"),
    ):  # fmt: skip
        assert student_words(written).input_ids == student_words(read).input_ids == again(written).input_ids
    split_at_chinese(teacher_tokenizer())
    assert capfd.readouterr().err == ""  # SentencePiece would tell of its table


def test_what_is_read_is_read_as_itself() -> None:
    """Traditional forms lead to simplified ones in one step; what everyone writes is not among them."""
    table = normalization_map()
    assert not table.keys() & set(table.values())
    assert not any(ord(character) in table for character in "戴帽子拿剑的猫什么后里面只发台云余，。！？ a8")
    assert len(table) > 3000
    assert max(table.values()) <= 0xFFFF


@pytest.mark.parametrize(
    ("typed", "read"),
    [("⼀只⽩⽺", "一只白羊"), ("戴帽\u200b子", "戴帽子"), ("\ufeff猫，\u2060狗", "猫，狗"), ("猫 \u200e", "猫"),
     ("猫\x00狗", "猫狗"), ("葛\U000e0100", "葛"), ("８０％", "80%"), ("﹁猫﹂﹐", "「猫」，"), ("㆒🈶", "一有"),
     ("猫\ue000 狗", "猫 狗")],
)  # fmt: skip
def test_forms_from_a_pdf_or_a_web_page(typed: str, read: str, student_words: PreTrainedTokenizerFast) -> None:
    assert student_words(typed).input_ids == student_words(read).input_ids


def test_every_code_point_is_read_as_the_cleaning_folds_it(
    teacher_words: PreTrainedTokenizerFast, student_words: PreTrainedTokenizerFast
) -> None:
    """All of Unicode, between two Chinese characters and between two English words.

    What the cleaning deletes falls away beside Chinese alone; forms of Chinese are folded everywhere; all others keep
    the teacher's ids, also where the cleaning folds them (µ, 𝐀, ﾊ).
    """
    table, dropped, folded = normalisation_table(chinese=True), set(invisible_characters()), normalization_map()
    points = [point for point in range(0xF0000) if unicodedata.category(chr(point)) not in ("Cn", "Cs")]
    changed = [p for p in points if p in dropped or p in folded or not unicodedata.is_normalized("NFC", chr(p))]
    typed = [f"猫{chr(point)}色" for point in changed]
    cleaned = ["猫" + ("" if table[point] == DELETE else chr(int(table[point]))) + "色" for point in changed]
    _same(student_words, student_words, typed, cleaned)
    others = [chr(point) for point in points if point not in folded]
    _same(
        teacher_words,
        student_words,
        [f"cat {letter} dog" for letter in others if not _CHINESE.match(unicodedata.normalize("NFC", letter))],
    )
    assert len(dropped) > 400
    assert {ord(letter) for letter in "⼀⽺％﹐㆒🈶ａ"} <= folded.keys()


def test_a_year_with_its_zero_is_one_word(teacher_words: PreTrainedTokenizerFast) -> None:
    student = extend_tokenizer(teacher_words, ["二〇二四年"] * 9, [], VocabularyConfig(20, 1))
    assert len(student("二〇二四年").input_ids) == 3


def test_learned_words_are_of_that_form(teacher_words: PreTrainedTokenizerFast) -> None:
    """A corpus that kept its traditional lines, and a dictionary with 著名, which is read as 着名."""
    student = extend_tokenizer(teacher_words, ["機械狗著名"] * 9, ["著名", "機械"], VocabularyConfig(4, 1))
    surfaces = set(new_token_texts(student, len(teacher_words)).values())
    assert {"着名", "机械"} <= surfaces
    assert not surfaces & set("機著")


def test_chinese_letters_are_those_of_unicode() -> None:
    """Kana, Hangul and Yi stay with their neighbours."""
    letter, ours = regex.compile(r"[\p{Han}&&\p{L}]", regex.V1), re.compile(HAN_WORD)
    found = [set(filter(rule.match, map(chr, range(0x10000)))) for rule in (letter, ours)]
    assert found[0] | {"〇"} == found[1]  # a number to Unicode


def test_no_token_straddles_two_words_of_the_dictionary(teacher_words: PreTrainedTokenizerFast) -> None:
    """北京大学 / 学生: without a dictionary 学学 is the commonest pair, with one it is never learned."""
    lines = ["大学学生", "中学学者"] * 20
    free = extend_tokenizer(teacher_words, lines, [], VocabularyConfig(30, 1))
    bound = extend_tokenizer(teacher_words, lines, ["大学", "学生", "中学", "学者"], VocabularyConfig(30, 1))
    assert any("学学" in surface for surface in new_token_texts(free, len(teacher_words)).values())
    surfaces = set(new_token_texts(bound, len(teacher_words)).values())
    assert not any("学学" in surface for surface in surfaces)
    assert {"大学", "学生", "中学", "学者"} <= surfaces


def test_twins(teacher_words: PreTrainedTokenizerFast, student_words: PreTrainedTokenizerFast) -> None:
    """A piece at the end of a run has the row of the piece inside; full-width punctuation that of its ASCII twin."""
    old, vocab = len(teacher_words), student_words.get_vocab()
    twins = tied_embeddings(student_words, old)
    assert twins[vocab[spell("猫") + "</w>"]] == vocab[spell("猫")]
    for wide, narrow in FULLWIDTH_TO_ASCII.items():
        assert twins[vocab[spell(wide)]] == vocab[narrow] < old
        assert twins[vocab[spell(wide) + "</w>"]] == vocab[narrow + "</w>"] < old
    assert not any(token < old for token in twins), "the teacher's own rows are nobody's twins"


def test_new_surfaces_are_whole_characters(
    teacher_words: PreTrainedTokenizerFast, student_words: PreTrainedTokenizerFast
) -> None:
    surfaces = new_token_texts(student_words, len(teacher_words))
    assert {"猫", "草地", "，"} <= set(surfaces.values())
    assert min(surfaces) >= len(teacher_words)
    halves = set(range(len(teacher_words), len(student_words))) - surfaces.keys()
    assert all(len(student_words.convert_ids_to_tokens(half)) == 2 for half in halves)


def test_round_trips(student_words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Through save_pretrained and AutoTokenizer, and through the published vocab.json and merges.txt."""
    student_words.save_pretrained(tmp_path / "saved")
    model = _model(student_words)
    vocab = student_words.get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = ["a red cat", "红色的猫，草地。", "mixed 猫 and dog！", "", "𠀀"]
    for again in (
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        CLIPTokenizer(vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt")),
    ):
        assert isinstance(again, PreTrainedTokenizerFast)
        assert len(again) == len(student_words)
        for text in texts:
            assert again(text)["input_ids"] == student_words(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").model_max_length == 77


def test_the_teachers_padding_token_is_kept(teacher_words: PreTrainedTokenizerFast) -> None:
    """Stable Diffusion 2 pads with "!"; a student that pads with end-of-text would give the UNet other states."""
    sd2 = teacher_tokenizer()
    sd2.pad_token = "!"
    assert extend_tokenizer(sd2, ["猫猫"], [], VocabularyConfig(0, 1)).pad_token == "!"


def test_merges_that_do_not_end_words_are_no_clip_tokenizer(tmp_path: Path) -> None:
    """GPT-2's, say: its words begin with a mark instead."""
    words = Tokenizer(models.BPE(vocab={"a": 0, "<|endoftext|>": 1}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match=r"teacher: .* a CLIPTokenizer is needed"):
        load_clip_tokenizer(str(tmp_path), "teacher")


@pytest.fixture(scope="module")
def real_pair(real: Path) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    teacher = load_clip_tokenizer(str(real / "teacher"), "teacher")
    chinese = (real / "corpora/caption/3am.train.zh").read_text(encoding="utf-8").split("\n")
    with gzip.open(real / "corpora/general/tatoeba.eng-cmn.tsv.gz", "rt", encoding="utf-8") as lines:
        chinese += [line.rstrip("\n").split("\t")[1] for line in lines if line.count("\t") == 1]
    return teacher, extend_tokenizer(teacher, chinese, [], VocabularyConfig(8000, 3))


@pytest.mark.parametrize("number", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_real_lines_keep_their_ids(
    number: int, real: Path, real_pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]
) -> None:
    """Of the made lines and of each corpus an equal share."""
    teacher, student = real_pair
    lines = [_CHINESE.sub("", line) for line in itertools.islice(_english(real), 0, 100_000, 100_000 // number)]
    assert len(lines) == number
    _same(teacher, student, lines)


def test_fertility_on_real_captions(
    real: Path, real_pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]
) -> None:
    """Captions that the merges were not learned on: at most 0.75 tokens a character, a third of the teacher's."""
    teacher, student = real_pair
    captions = (real / "corpora/caption/3am.test.zh").read_text(encoding="utf-8").split("\n")[:-1]
    characters = sum(len("".join(caption.split())) for caption in captions)
    ours, theirs = (
        sum(len(e.ids) - 2 for e in words.backend_tokenizer.encode_batch_fast(captions)) / characters
        for words in (student, teacher)
    )
    assert ours <= 0.75 < 2 < theirs


def test_real_merges_begin_with_a_chinese_lead_byte(
    real_pair: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
) -> None:
    teacher, student = real_pair
    merges = [tuple(pair) for pair in _model(student)["merges"]]
    assert len(merges) > len(_model(teacher)["merges"]) + 10_000
    _check_leads(merges[len(_model(teacher)["merges"]) :])


def _check_leads(merges: list[tuple[str, ...]]) -> None:
    leads = {spell(chr(first << 12))[0] for first in range(3, 10)}  # U+3000 to U+9FFF: E3 to E9
    assert leads == {spell("　")[0], spell("䀀")[0], *(spell(c)[0] for c in "倀怀瀀耀退")}
    for first, *_ in merges:
        assert first[0] in leads or first[:2] in (spell("！")[:2], spell("｡")[:2]) or first == spell("！")[0], first


def _model(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[list[str]]]:
    model: dict[str, list[list[str]]] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return model


def _english(real: Path) -> Iterator[str]:
    """30,000 made lines of accents, emoji, numbers and code, then English of several corpora."""
    random.seed(1)
    words = [
        "café",
        "Ångström",
        "naïve",
        "señor",
        "❤️",
        "👍🏽",
        "🇨🇳",
        "½",
        "3.14e-5",
        "#42",
        "${x}",
        "a[i]+=1;",
        "==>",
        "Ünïcödé",
        "don't",
        "—",
        "…",
        "™",
        "κόσμε",
        "привет",
        "שלום",
        "한글",
        "ひらがな",
        "カナ",
    ]
    for _ in range(30_000):
        yield " ".join(random.choices(words, k=6)) + str(random.random())
    for name in ("caption/3am.train.en", "encyclopedia/flores200.en", "caption/3am.val.en"):
        yield from (real / "corpora" / name).read_text(encoding="utf-8").split("\n")
    with gzip.open(real / "corpora/subtitle/tv4dialog.tsv.gz", "rt", encoding="utf-8") as lines:
        yield from (column for line in lines for column in line.split("\t")[:1])
