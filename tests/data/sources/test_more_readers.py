"""Formats of the large published corpora, on exact imitations of their files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.cli import UserError
from tests.data.sources.test_readers import pairs, read, source


def test_scored_tsv_of_wikimatrix(tmp_path: Path) -> None:
    text = "1.25\tOne sentence.\t一句话。\n1.01\tToo low.\t太低。\nnot a number\tOdd.\t怪。\n"
    (tmp_path / "wm.tsv").write_text(text, encoding="utf-8")
    found = read(source("tsv", files=["wm.tsv"], score=1, en=2, zh=3, min_score=1.04), tmp_path)
    assert [(r["en"], r["fault"]) for r in found] == [("One sentence.", ""), ("Too low.", "score"), ("Odd.", "score")]


def test_tmx_units(tmp_path: Path) -> None:
    text = """<?xml version="1.0" encoding="UTF-8"?><tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en"><seg>A <bpt i="1"/>bold move.</seg></tuv><tuv xml:lang="zh-CN"><seg>大胆之举。</seg></tuv></tu>
<tu><tuv xml:lang="EN_us"><seg>Lone.</seg></tuv></tu>
<tu><tuv lang="zh"><seg>你好。</seg></tuv><tuv lang="en"><seg>Hello.</seg></tuv></tu></body></tmx>"""
    (tmp_path / "a.tmx").write_text(text, encoding="utf-8")
    made = source("tmx", files=["a.tmx"])
    assert pairs(made, tmp_path) == [("A bold move.", "大胆之举。"), ("Hello.", "你好。")]
    assert [r["fault"] for r in read(made, tmp_path)] == ["", "languages", ""]
    (tmp_path / "a.tmx").write_text(text[:200], encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.tmx:3: not well-formed XML"):
        read(made, tmp_path)


def test_tmx_entity_bombs_are_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE tmx [<!ENTITY e0 "lol">{entities}]><tmx><body><tu>&e11;</tu></body></tmx>'
    (tmp_path / "a.tmx").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.tmx"):
        read(source("tmx", files=["a.tmx"]), tmp_path)


def test_sgml_segments_pair_by_document_and_id(tmp_path: Path) -> None:
    en = '<srcset setid="t">\n<doc docid="d1">\n<seg id="1"> Tom &amp; I </seg>\n<seg id="2">Two</seg>\n</doc></srcset>'
    zh = '<refset><DOC docid="d1">\n<seg id="2">二</seg>\n<seg id="1">汤姆和我</seg>\n<seg id="3">三</seg></DOC>'
    (tmp_path / "en.sgm").write_text(en, encoding="utf-8")
    (tmp_path / "zh.sgm").write_text(zh, encoding="utf-8")
    found = read(source("sgml", en=["en.sgm"], zh=["zh.sgm"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["fault"]) for r in found] == [
        ("Tom & I", "汤姆和我", 3, ""),
        ("Two", "二", 4, ""),
        ("", "三", 4, "one_sided"),
    ]


def srt(*cues: tuple[str, str, str]) -> str:
    return "\n".join(f"{n}\n00:00:{a} --> 00:00:{b}\n{text}\n" for n, (a, b, text) in enumerate(cues, 1))


def test_two_srt_files_align_by_time(tmp_path: Path) -> None:
    en = srt(("01,000", "02,000", "One."), ("03,000", "05,000", "Two and\nthree."), ("06,000", "07,000", "Lone."))
    zh = srt(("01,100", "02,100", "一。"), ("03,000", "04,000", "二"), ("04,000", "05,000", "和三。"))
    (tmp_path / "en.srt").write_text(en, encoding="utf-8")
    (tmp_path / "zh.srt").write_text(zh, encoding="utf-16")
    (tmp_path / "zh.srt").write_text(zh, encoding="utf-8")
    found = read(source("subtitles", en=["en.srt"], zh=["zh.srt"]), tmp_path)
    assert [(r["en"], r["zh"], r["line"], r["fault"]) for r in found] == [
        ("One.", "一。", 2, ""),
        ("Two and three.", "二 和三。", 6, ""),
        ("Lone.", "", 11, "one_sided"),
    ]


def test_bilingual_ass(tmp_path: Path) -> None:
    text = (
        "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\fs20}你好，世界\\N{\\fs12}Hello, world.\n"
    )
    (tmp_path / "a.ass").write_text(text, encoding="utf-8")
    assert pairs(source("subtitles", files=["a.ass"]), tmp_path) == [("Hello, world.", "你好，世界")]


def test_captions_join_by_image_and_index(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("1.jpg#0\tA dog.\n1.jpg#1\tA brown dog.\n2.jpg#0\tLone.\n", encoding="utf-8")
    (tmp_path / "zh.txt").write_text("1.jpg#zhm#1\t棕色的狗。\n1.jpg#zhm#0\t一只狗。\n", encoding="utf-8")
    found = read(source("captions", en="en.txt", zh="zh.txt"), tmp_path)
    assert [(r["en"], r["zh"], r["image"], r["fault"]) for r in found] == [
        ("A dog.", "一只狗。", "1.jpg", ""),
        ("A brown dog.", "棕色的狗。", "1.jpg", ""),
        ("Lone.", "", "2.jpg", "one_sided"),
    ]


def test_omw_words_of_one_synset(tmp_path: Path) -> None:
    (tmp_path / "en.tab").write_text("# Princeton\n01-n\tlemma\tgreat_dog\n01-n\tlemma\tdog\n", encoding="utf-8")
    (tmp_path / "zh.tab").write_text(
        "01-n\tcmn:lemma\t狗\n01-n\tcmn:lemma\t犬\n02-a\tcmn:lemma\t大+的\n", encoding="utf-8"
    )
    found = pairs(source("omw", en="en.tab", zh="zh.tab"), tmp_path)
    assert found == [("great dog", "狗"), ("great dog", "犬"), ("dog", "狗"), ("dog", "犬")]


def test_wikipedia_titles_by_language_link(tmp_path: Path) -> None:
    links = "INSERT INTO `langlinks` VALUES (12,'zh','無政府主義'),(12,'fr','A'),(39,'zh','乔治\\'s_歌 (消歧义)');\n"
    page = (
        "INSERT INTO `page` VALUES (12,0,'Anarchism','',0),(39,0,'George\\'s_song_(album)','',0),(40,1,'Talk','',0);\n"
    )
    (tmp_path / "l.sql").write_text(links, encoding="utf-8")
    (tmp_path / "p.sql").write_text(page, encoding="utf-8")
    found = pairs(source("wikipedia_titles", langlinks="l.sql", page="p.sql"), tmp_path)
    assert found == [("Anarchism", "無政府主義"), ("George's song", "乔治's 歌")]


def test_wikipedia_abstracts_under_the_same_links(tmp_path: Path) -> None:
    links, page = "(12,'zh','月球'),(39,'zh','歌')", "(12,0,'The_Moon',''),(39,0,'Song','')"
    (tmp_path / "l.sql").write_text(f"INSERT INTO `langlinks` VALUES {links};\n", encoding="utf-8")
    (tmp_path / "p.sql").write_text(f"INSERT INTO `page` VALUES {page};\n", encoding="utf-8")

    def dump(name: str, prefix: str, *entries: tuple[str, str]) -> None:
        docs = "".join(f"<doc><title>{prefix}{t}</title><abstract>{a}</abstract></doc>\n" for t, a in entries)
        (tmp_path / name).write_text(f"<feed>\n{docs}</feed>", encoding="utf-8")

    dump("en.xml", "Wikipedia: ", ("Sun", "A star."), ("The Moon", "Our moon &amp; more."), ("Song", "Sung."))
    dump("zh.xml", "维基百科：", ("月球", "地球的卫星。"), ("太阳", "恒星。"))
    made = source("wikipedia_abstracts", en="en.xml", zh="zh.xml", langlinks="l.sql", page="p.sql")
    assert [(r["en"], r["zh"], r["line"], r["fault"]) for r in read(made, tmp_path)] == [
        ("A star.", "", 1, "one_sided"),
        ("Our moon & more.", "地球的卫星。", 2, ""),
        ("Sung.", "", 3, "one_sided"),
    ]


def test_parquet_by_column_names(tmp_path: Path) -> None:
    rows = [
        {"translation": {"en": "one", "zh": "一"}, "url": "7.jpg"},
        {"translation": {"en": "two", "zh": None}, "url": "8"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    made = source("parquet", files=["a.parquet"], en="translation.en", zh="translation.zh", image="url")
    assert [(r["en"], r["zh"], r["image"], r["line"]) for r in read(made, tmp_path)] == [
        ("one", "一", "7.jpg", 1),
        ("two", "", "8", 2),
    ]
    with pytest.raises(UserError, match=r"a\.parquet: no column 'en'; it has translation, url"):
        read(source("parquet", files=["a.parquet"]), tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"b\.parquet: not a readable Parquet file"):
        read(source("parquet", files=["b.parquet"]), tmp_path)


def test_json_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"猫": "cat", "狗": 1}), encoding="utf-8")
    found = read(source("mapping", files=["a.json"], flipped=True), tmp_path)
    assert [(r["en"], r["zh"], r["fault"]) for r in found] == [("cat", "猫", ""), ("狗", "", "keys")]


def test_hub_data_set_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [{"translation": {"en": "one", "zh": "一"}}, {"translation": {"en": "two", "zh": "二"}}, {"translation": {}}]

    def load(name: str, config: str | None, **options: object) -> object:
        assert (name, config, options["streaming"], options["split"]) == ("a/b", "en-zh", True, "train")
        return datasets.IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = read(source("hub", id="a/b", config="en-zh"), tmp_path)
    assert [(r["en"], r["fault"]) for r in found] == [("one", ""), ("two", ""), ("", "keys")]
    assert len(read(source("hub", id="a/b", config="en-zh", rows=1), tmp_path)) == 1


def test_urls_are_read_through_fsspec(tmp_path: Path) -> None:
    import fsspec  # type: ignore[import-untyped]

    fsspec.filesystem("memory").pipe("/corpus/a.tsv", "one\t一\n".encode())
    assert pairs(source("tsv", files=["memory://corpus/a.tsv"]), tmp_path) == [("one", "一")]
