import json
from pathlib import Path

import pyarrow.dataset
import pytest

from data.build.__main__ import build
from data.miniature import ASSETS
from data.miniature.corpus import write_pairs, write_test
from scripts import quickstart


def test_the_recipe_keeps_every_register_and_no_test_caption(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 300, 0)
    write_test(tmp_path / "test", 20)
    quickstart._write_corpus_config(tmp_path)
    build(tmp_path / "corpus.yaml", tmp_path / "corpus")
    kept = pyarrow.dataset.dataset(tmp_path / "corpus" / "train").to_table()
    assert set(kept["domain"].to_pylist()) == {
        "caption", "prompt", "poetry", "subtitle", "encyclopedia", "dictionary",
    }  # fmt: skip
    lines = (tmp_path / "test" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    tested = {text for line in lines for text in json.loads(line)["zh"]}
    assert not tested & set(kept["zh"].to_pylist())


def test_a_mistake_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        quickstart.run_quickstart(tmp_path / "file" / "below")
    assert stopped.value.code == 2
    assert capfd.readouterr().err.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_way_and_again_in_seconds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not (ASSETS / "pipeline").is_dir():
        pytest.skip("the miniature's pipeline is not in data/miniature/assets")
    for _ in range(2):  # the second time everything is there
        quickstart.run_quickstart(tmp_path, scenes=50, drawn=8)  # all pairs: fewer, seen more often, move English
    assert "mean recall: teacher on English" in capfd.readouterr().out
    drawn = json.loads((tmp_path / "drawn" / "result.json").read_text(encoding="utf-8"))
    assert drawn["psnr"]["student-en"]["mean"] > 25
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
