import json
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
import pytest

from data.build.__main__ import build
from data.miniature.corpus import write_pairs, write_test
from eval import quickstart
from tests.conftest import REPOSITORY


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


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "scripts/quickstart.py", "--folder", str(tmp_path / "file" / "below")]
    completed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert completed.stderr.splitlines() == [
        f"error: {tmp_path / 'file' / 'below' / 'world' / 'pairs'}: Not a directory"
    ]


def test_stages_whose_output_is_there_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages for data are skipped one by one; training resumes by itself, and all measures are taken again."""
    called: list[str] = []
    monkeypatch.setattr(quickstart, "run_subcommand", lambda *arguments: called.append(" ".join(arguments[:2])))
    scores = {("teacher", "en"): 90.0, ("student", "zh"): 80.0, ("teacher", "zh"): 1.0}
    rows = [{"model": model, "language": language, "mr": mr} for (model, language), mr in scores.items()]
    (tmp_path / "retrieval.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    quickstart.main(tmp_path, scenes=3)
    every = called.copy()
    assert every[:4] == ["-m data.miniature", "-m data.build", "-m data.augment", "-m distill.unet_geometry"]
    assert every[4:6] == ["scripts/distill.py --config", "scripts/export.py --run"]
    assert every[6:] == ["-m eval.flickr30k_cn", "-m eval.generation", "-m eval.report"]
    for output in ("world/test/images/0002.png", "corpus/report.json", "corpus/train/augmented-00000.parquet"):
        (tmp_path / output).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / output).touch()
    called.clear()
    quickstart.main(tmp_path, scenes=3)
    assert called == every[3:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_way_and_again_in_seconds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not (quickstart.ASSETS / "pipeline").is_dir():
        pytest.skip("the miniature's pipeline is not in data/miniature/assets")
    for _ in range(2):  # the second time everything is there
        quickstart.main(tmp_path, scenes=50, drawn=8)  # all pairs: fewer, seen more often, move English
    assert "mean recall: teacher on English" in capfd.readouterr().out
    drawn = json.loads((tmp_path / "drawn" / "result.json").read_text(encoding="utf-8"))
    assert drawn["psnr"]["student-en"]["mean"] > 25
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
