"""Looking into a corpus: the card, the terminal, the page."""

import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data.cli import UserError
from data.inspect import Query, main, samples
from tests.data.build.test_build import DIRTY
from tests.data.corpora import PAIRS, built, tsv_config


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    built(tsv_config(tmp_path, PAIRS + DIRTY, valid_per_domain=1))
    return tmp_path / "corpus"


def test_samples_by_reason_source_and_score(corpus: Path) -> None:
    assert {s.reason: s.total for s in samples(corpus, Query())} == {
        "kept": 9, "valid": 1, "columns": 1, "en_empty": 1, "zh_empty": 1, "identical": 1, "zh_script": 1,
        "bad_utf8": 1, "duplicate": 1,
    }  # fmt: skip
    (one,) = samples(corpus, Query(reason="zh_script"))
    assert [row["en"] for row in one.rows] == ["No Chinese at all"]
    (long,) = samples(corpus, Query(reason="kept", score="en_chars", low=32, rows=99))
    assert [len(row["en"]) for row in long.rows] == sorted(len(en) for en, _ in PAIRS if len(en) >= 32)


def test_questions_that_have_no_answer(corpus: Path) -> None:
    for query, match in (
        (Query(score="length"), "no score 'length'; the scores are en_chars"),
        (Query(source="other"), "no source 'other'; it has pairs"),
        (Query(reason="bogus"), "no row with reason 'bogus' .* the reasons are bad_utf8, columns, duplicate, "),
    ):
        with pytest.raises(UserError, match=match):
            samples(corpus, query)
    with pytest.raises(UserError, match="no scored rows"):
        samples(corpus / "train", Query())


def test_the_page_is_whole_and_loads_nothing(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["data.inspect", str(corpus), "--html", str(corpus / "page.html"), "--rows", "3"])
    main()
    assert "Only English" in capsys.readouterr().out
    text = (corpus / "page.html").read_text(encoding="utf-8")
    seen = set[str]()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.add(tag)
            assert not {"src", "href"} & {name for name, _ in attrs}

    Tags().feed(text)
    assert {"svg", "table", "rect"} <= seen
    assert "script" not in seen
    assert "No Chinese at all" in text
    assert text.count("<rect") > 60


def test_the_data_card_names_sources_licences_and_rejects(corpus: Path) -> None:
    card = (corpus / "DATA_CARD.md").read_text(encoding="utf-8")
    assert "9 training and 1 held-out" in card
    assert "| pairs | general | CC0 | 17 | 9 | 1 | 7 |" in card
    assert "| zh_script | 1 | No Chinese at all / pas de chinois ici |" in card
    assert "None was named: do not report benchmark scores" in card
    assert "一只狗在草地上奔跑。" in card
