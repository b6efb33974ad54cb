"""Normal forms, scores, keys and signatures against hand values and properties."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.clean.benchmarks import Benchmark
from data.clean.characters import TextColumn, decode, encode
from data.clean.decontaminate import benchmark_overlap, build_index, build_indices
from data.clean.hashing import (
    BANDS,
    casefolded,
    first_n_per_key,
    hash_rows,
    minhash_signatures,
    near_duplicates,
    ngram_hashes,
)
from data.clean.heuristics import count_characters, numbers_disagree, periodicity
from data.clean.language import cantonese, foreign_word_share
from data.clean.normalise import normalise_text, strip_speakers
from data.clean.scores import han_share, is_null
from data.sources.benchmark_files import image_id
from data.sources.io import TEXT

CHARACTERS = st.characters(exclude_categories=["Cs"])


def column(*texts: str) -> pa.Array:
    return pa.array(texts, TEXT)


def text(*texts: str) -> TextColumn:
    return decode(column(*texts))


def english(value: str) -> str:
    return str(encode(normalise_text(text(value), False, False, "keep"))[0].as_py())


def chinese(value: str, simplify: bool = True, spaces: str = "remove") -> str:
    return str(encode(normalise_text(text(value), True, simplify, spaces))[0].as_py())


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.text(CHARACTERS)))
def test_code_points_round_trip(texts: list[str]) -> None:
    assert encode(decode(pa.array(texts, TEXT))).to_pylist() == texts


def test_code_points_of_a_slice() -> None:
    assert encode(decode(column("a", "桥b", "", "😀").slice(1, 3))).to_pylist() == ["桥b", "", "😀"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ＡＢＣ１２３，ok", "ABC123,ok"),
        ("  two\t\u3000spaces\u200b ", "two spaces"),
        ("a &amp;amp; b &lt;3", "a & b <3"),
        ("<i>bold</i> move", "bold move"),
        ("{\\an8}Up here", "Up here"),
        ("“Curly” ‘quotes’", "\"Curly\" 'quotes'"),
        ("wide , high !", "wide, high!"),
        ("wait ... what", "wait ... what"),
        ("ctrl\x07 and \ufeffbom", "ctrl and bom"),
        ("''italic'' wiki", "italic wiki"),
        ("If a < b and c > d then stop", "If a < b and c > d then stop"),
        ('<font color="red">Red</font> <br/>line<!-- note -->', "Red line"),
        ("Welcome to %s", "Welcome to %s"),
        ("50 % of it", "50% of it"),
        ("He smiled :) and she ;-) too", "He smiled :) and she ;-) too"),
        ("One thing : a dog ; a cat", "One thing: a dog; a cat"),
        ("if a != b , .5 or 1 !", "if a != b, .5 or 1!"),
        ("1 , 000 people at 10 : 30 for 1 . 5 km", "1,000 people at 10:30 for 1.5 km"),
        ("I do n't know , it 's his , they 're CA N'T", "I don't know, it's his, they're CAN'T"),
        ("it ' s we don &apos; t", "it's we don't"),
        ("a well @-@ known man", "a well-known man"),
        ("-LRB- a note -RRB- -lsb- b -rsb-", "(a note) [b]"),
        ("He said `` hello '' to us", 'He said "hello" to us'),
        ("the dogs ' bowl and 'quoted' words", "the dogs ' bowl and 'quoted' words"),
    ],
)
def test_english_normal_form(before: str, after: str) -> None:
    assert english(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("漢語，繁體字", "汉语，繁体字"),
        ("头发和發展、乾燥與乾隆", "头发和发展、干燥与乾隆"),
        ("ＧＰＵ　１２８", "GPU 128"),
        ("你好,世界!", "你好，世界！"),
        ("他走了.", "他走了。"),
        ("我 爱 你", "我爱你"),
        ("iPhone 15 手机", "iPhone 15 手机"),
        ("约 10 ,000 人", "约 10,000 人"),
        ("250，000个单位", "250,000个单位"),
        ("（全角）保留。", "（全角）保留。"),
        ("3.5米", "3.5米"),
        ("⾦属", "金属"),
        ("什么?!你说什么!?", "什么？！你说什么！？"),
        ("共1 , 000人", "共1,000人"),
    ],
)
def test_chinese_normal_form(before: str, after: str) -> None:
    assert chinese(before) == after


def test_spaces_policies() -> None:
    assert chinese("等等  他吃粉笔吗", spaces="comma") == "等等，他吃粉笔吗"
    assert chinese("等等  他吃粉笔吗", spaces="keep") == "等等 他吃粉笔吗"
    assert chinese("漢字", simplify=False) == "漢字"


@settings(max_examples=200, deadline=None)
@given(st.text(CHARACTERS, max_size=60))
def test_normal_forms_are_stable_and_one_row(value: str) -> None:
    for normal in (english, chinese):
        once = normal(value)
        assert "\n" not in once
        assert once == once.strip()


def test_a_row_never_depends_on_its_neighbours() -> None:
    values = ["漢 字 &amp; <b>x</b>", "", "plain", "ends with space ", "...", "，", "a\nb"]
    for zh in (False, True):
        together = encode(normalise_text(text(*values), zh, zh, "remove")).to_pylist()
        assert together == [encode(normalise_text(text(v), zh, zh, "remove"))[0].as_py() for v in values]


@pytest.mark.parametrize(
    ("en", "zh", "wanted"),
    [
        ("- Yes. - No.", "-是的 -不", ("Yes. No.", "是的 不")),
        ("MONICA: There's nothing.", "莫妮卡：没什么。", ("There's nothing.", "没什么。")),
        ("He said this.", "他说：没什么。", ("He said this.", "他说：没什么。")),
        ("Rachel.", "('3-8', 'PHOEBE')瑞秋", ("Rachel.", "瑞秋")),
        ("♪ How much ♪", "♪ 多爱我 ♪", ("How much", "多爱我")),
        ("Sir, are you okay?", "[韩语] 先生，你还好吧？", ("Sir, are you okay?", "先生，你还好吧？")),
        ("Stop! [gunshot] (Laughter) Go.", "停！【枪声】（笑声）走。", ("Stop!   Go.", "停！走。")),
        ("Rick.", "韦斯/[《惊声尖叫》导演] 我是里奇", ("Rick.", "韦斯/ 我是里奇")),
        ("I (really) mean it.", "我（真的）是认真的。", ("I (really) mean it.", "我（真的）是认真的。")),
        ("So it is ttp.", "所以就是ttp (血栓性紫斑症)", ("So it is ttp.", "所以就是ttp")),
    ],
)
def test_speaker_marks_go(en: str, zh: str, wanted: tuple[str, str]) -> None:
    found = strip_speakers(column(en), column(zh))
    assert (found[0][0].as_py(), found[1][0].as_py()) == wanted


def test_keys_ignore_case_width_and_punctuation_but_not_order() -> None:
    keys = hash_rows(casefolded(text("A dog!", "a  DOG", "dog a", "", "a dogs", "一只狗。", "一只狗")))
    assert keys[0] == keys[1]
    assert keys[5] == keys[6]
    assert len({int(k) for k in keys}) == 5


def test_scores_by_hand() -> None:
    assert count_characters(text("aaab", "", "1111", "好好好啊")).char_run.tolist() == [3, 0, 1, 3]
    assert han_share(count_characters(text("Bernstein于2008年逝世。", "ABC DEF", "全是汉字"))) == pytest.approx(
        [4 / 5, 0, 1]
    )
    assert periodicity(text("abcabcabcabcabcabcabcabcabc", "a normal sentence without such")).tolist()[0] == 1
    assert periodicity(text("no pain no gain")).tolist() == [0]


def test_wide_and_narrow_brackets_close_each_other() -> None:
    rows = text("榛名（泳装)", "(a】", "[b】", "（（c)", "“quoted”", "smiled :)")
    assert count_characters(rows).unbalanced_brackets.tolist() == [0, 2, 0, 1, 0, 1]


def test_null_words_of_either_side() -> None:
    en = ["None", "nan", "NaN", "N/A", "<unk>", "A red dog", "A red dog", "None", "nan", "Nanny", "\\N"]
    zh = ["一只红色的狗", "红裙子", "没有钱", "好", "好的", "null", "#N/A", "没有", "馕", "保姆", "空房间"]
    assert is_null(text(*en), text(*zh), False).tolist() == [True] * 7 + [False] * 3 + [True]
    assert is_null(text(*en), text(*zh), True).tolist() == [False] * 5 + [True] * 2 + [False] * 4


def test_numbers_disagree_only_where_nothing_explains_it() -> None:
    en = ["born in 1982", "1 million", "10,000 yen", "room 07", "call 9-1-1", "in '76", "no digits", "5 of 9"]
    zh = ["生于1983", "100万", "10,000元", "7号房间", "打911", "在1976", "有5个", "9之5"]
    assert numbers_disagree(text(*en), text(*zh)).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_language_of_either_side() -> None:
    found = foreign_word_share(
        text("Il faut que nous le fassions pour vous", "He is in the Los Angeles of today", "la la la la")
    )
    assert found[0] > 0.3
    assert found[1] <= 0
    assert cantonese(text("佢哋喺度食嘢", "他们在这里吃东西", "唔，我想想", "我唔知道")).tolist() == [4, 0, 0, 1]


def test_grams_stop_at_row_ends() -> None:
    found = ngram_hashes(text("abcd", "", "xbc", "bc"), 3)
    assert np.diff(found.starts).tolist() == [2, 0, 1, 0]
    assert ngram_hashes(text("abc", "zabc"), 3).hashes[[0, 2]].tolist() == [ngram_hashes(text("abc"), 3).hashes[0]] * 2


def test_near_duplicates_are_found_and_different_rows_are_not() -> None:
    en = ["A man in a red shirt rides a bicycle down the long hill.", "A woman reads a newspaper in the small cafe."]
    zh = ["一个穿红衬衫的男人骑着自行车下了长长的山坡。", "一位女士在小咖啡馆里看报纸。"]
    en.append("A man in a red shirt rides a bicycle down the long hills.")
    zh.append("一个穿红衬衫的男人骑着自行车下了长长的山坡")
    table = minhash_signatures(casefolded(text(*en)), casefolded(text(*zh)))
    in_bands = [near_duplicates(table, band, 0.85) for band in range(BANDS)]
    assert np.any(in_bands, axis=0).tolist() == [False, False, True]
    assert not np.any([near_duplicates(table[1:], band, 0.85) for band in range(BANDS)])


def test_signature_agreement_estimates_jaccard() -> None:
    words = np.random.default_rng(0).integers(0, 26, (2, 4000)) + 97
    left = TextColumn(np.concatenate([words[0], words[1]]).astype(np.uint32), np.array([0, 8000]))
    right = TextColumn(words[0].astype(np.uint32), np.array([0, 4000]))
    none = text("")
    share = float(np.mean(minhash_signatures(left, none) == minhash_signatures(right, none)))
    assert share == pytest.approx(0.5, abs=0.25)  # 48 hashes: deviation 0.07


def test_overlap_with_a_benchmark_text() -> None:
    index = build_index(("一只棕色的狗在雪地里追赶红色的球",), chinese=True)
    rows = casefolded(
        text("今天一只棕色的狗在雪地里追赶红色的球，很可爱", "一只棕色的狗在雪地里追赶蓝色的球", "两个人坐在长椅上聊天")
    )
    found = benchmark_overlap(rows, index)
    assert found.containment[0] == 1
    assert found.jaccard[0] == pytest.approx(14 / 19)  # distinct bigrams: 14 of the text, 19 of the row, 14 shared
    assert 0 < found.containment[1] < 0.75
    assert found.jaccard[1] == pytest.approx(12 / 16)
    assert found.containment[2] == 0


def test_benchmarks_of_both_languages_get_an_index_each() -> None:
    en, zh = build_indices(
        [Benchmark("b", ("A brown dog chases a ball in the snow.", "一只棕色的狗在雪地里追球"), frozenset())]
    )
    assert (en.texts.rows, zh.texts.rows) == (1, 1)
    assert benchmark_overlap(casefolded(text("see: A brown dog chases a ball in the snow")), en).containment[0] == 1


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("val2014/COCO_val2014_000000163020.jpg", "coco:163020"),
        ("000000163020.jpg", "coco:163020"),
        ("163020.jpg", "163020"),
        ("1007129816.JPG#2", "1007129816"),
        ("a/b/1019604187_d087bf9a5f.jpg", "1019604187_d087bf9a5f"),
    ],
)
def test_image_ids(name: str, same: str) -> None:
    assert image_id(name) == same


def test_first_rows_of_a_key_in_row_order() -> None:
    keys = np.array([5, 7, 5, 5, 7], np.uint64)
    assert first_n_per_key(keys, np.full(5, 2)).tolist() == [True, True, True, False, True]
    assert first_n_per_key(keys[1:], np.array([1, 1, 2, 1])).tolist() == [True, True, True, False]
