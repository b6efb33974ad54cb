import json
from pathlib import Path
from typing import Any

import pytest

from data.cli import UserError
from eval import ablation
from eval.ablation import dot_plot_svg, load_results, markdown_table, mean_and_half_width
from eval.report.charts import dot_plot
from tests.conftest import REPOSITORY


def write_result(out: Path, name: str, seed: int, percent: float) -> None:
    found = {"retrieval": {"student-zh/teacher-en": percent, "student-en/teacher-en": 100.0}, "cost": {"seconds": 60.0}}
    (out / f"{name}.{seed}.json").write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "said"),
    # Sample deviation of 1, 2, 3 is 1; 4.303 / sqrt(3) = 2.484. Of 90 and 94: 2.828 * 12.706 / sqrt(2) = 25.412.
    [([], "-"), ([0.25], "0.250"), ([99.5], "99.5"), ([1.0, 2.0, 3.0], "2.000 ± 2.484"), ([90.0, 94.0], "92.0 ± 25.4")],
)
def test_the_mean_and_the_half_width_of_its_interval(values: list[float], said: str) -> None:
    assert mean_and_half_width(values) == said


def test_a_line_for_each_row_that_has_results_in_the_order_given(tmp_path: Path) -> None:
    for seed, percent in enumerate((97.0, 98.0, 99.0)):
        write_result(tmp_path, "second", seed, percent)
    write_result(tmp_path, "base", 0, 99.0)
    write_result(tmp_path, "second-other", 0, 1.0)  # its name begins like another row's
    found = load_results(tmp_path, ["base", "second", "absent"])
    lines = markdown_table(found).splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:]] == [["| base", "1", "99.0"], ["| second", "3", "98.0 ± 2.5"]]
    drawn = dot_plot_svg(found)
    # Three measures; a dot a value and one a mean. A panel is 180 wide with 14 free at either side.
    assert drawn.count('class="v"') == 12
    assert drawn.count('class="c"') == 6
    assert '<circle class="v" cx="194.0" cy="60" r="3"/>' in drawn  # 97, the second row's lowest, at the left end
    assert '<circle class="c" cx="270.0" cy="60" r="4"/>' in drawn
    assert "absent" not in drawn


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "base.yaml").write_text("train: {steps: 2}\n")
    (folder / "other.yaml").write_text("losses: {hidden: null}\n")
    return folder


def arguments(rows: Path, out: Path, *more: str) -> list[str]:
    (rows.parent / "report.json").write_text("{}")
    return ["--rows", str(rows), "--out", str(out), "--corpus", str(rows.parent), "--teacher", "T", "--data", "D",
            "--image-features", "F", *more]  # fmt: skip


def test_rows_and_seeds_that_are_there_are_not_run_again(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, ...]] = []
    result: dict[str, Any] = {
        "ratios": {key: {"percent": 98.0, "ci95": [97.0, 99.0]} for key in ("student-zh/teacher-en",
                                                                            "student-en/teacher-en")},
        "settings": {"sha256": {"features": "0"}},
    }  # fmt: skip

    def call(*words: str | int | Path) -> float:
        called.append(command := tuple(map(str, words)))
        if "eval.flickr30k_cn" in command:
            Path(command[-1]).parent.mkdir(parents=True, exist_ok=True)
            Path(command[-1]).write_text(json.dumps(result))
        return 5.0

    monkeypatch.setattr(ablation, "_call", call)
    out = tmp_path / "out"
    ablation.run_ablation(arguments(rows, out, "--seeds", "[0]", "--only", "[base]"))
    assert len(called) == 3
    table = ablation.run_ablation(arguments(rows, out, "--seeds", "[0]"))
    assert len(called) == 6
    distilled = called[3]
    assert distilled[:5] == ("scripts/distill.py", "--config", str(rows / "base.yaml"), "--config",
                             str(rows / "other.yaml"))  # fmt: skip
    assert distilled[distilled.index("--train.seed") + 1] == "0"
    written = json.loads((out / "other.0.json").read_text())
    assert written["cost"]["seconds"] == 5.0
    assert [Path(path).name for path in written["sha256"]] == ["base.yaml", "other.yaml", "report.json", "features"]
    assert table == (out / "table.md").read_text()
    assert "| other | 1 | 98.0 | 98.0 |" in table


@pytest.mark.parametrize(("row", "said"), [("[nothing]", "--only nothing: no such row in"), ("", "no base.yaml")])
def test_what_is_not_there_is_one_line(rows: Path, tmp_path: Path, row: str, said: str) -> None:
    if not row:
        (rows / "base.yaml").unlink()
    with pytest.raises(UserError, match=said):
        ablation.run_ablation(arguments(rows, tmp_path / "out", *(["--only", row] if row else [])))


def test_a_row_far_from_the_others_is_written_at_the_edge_and_does_not_flatten_them() -> None:
    drawn = dot_plot(
        {"MR": {"a": [99.0], "b": [100.0], "c": [98.0], "far": [20.0]}}, ["a", "b", "c", "far"], lambda _: 0.0
    )
    assert '<circle class="c" cx="270.0" cy="40" r="4"/>' in drawn  # 99 is the middle of 98 to 100
    assert '<text class="" x="202.0" y="104">20</text>' in drawn


@pytest.mark.parametrize(("material", "rows"), [("real", 14), ("miniature", 21), ("mixed", 3)])
def test_the_page_shows_what_the_committed_results_say(material: str, rows: int) -> None:
    page = (REPOSITORY / "docs" / "ablation.md").read_text(encoding="utf-8")
    folder = REPOSITORY / "docs" / "ablation" / material
    names = ["base", *sorted({path.stem.rsplit(".", 1)[0] for path in folder.glob("*.json")} - {"base"})]
    found = load_results(folder, names)
    assert len(found) == rows
    assert markdown_table(found) in page
    assert dot_plot_svg(found) == (folder / "table.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--images", "I"], "needs one of them"), (["--pipeline", "P"], "needs --prompts to draw and the --recogniser")],
)
def test_what_is_missing_is_said_before_anything_is_trained(
    rows: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        ablation.run_ablation(arguments(rows, tmp_path / "out", *more))
