"""The comparison with OpusFilter: what is counted, with a stand-in for the peer."""

import stat
import sys
from pathlib import Path

from eval.speed.peer_opusfilter import compare_with_opusfilter
from tests.data.corpora import PAIRS, write_tsv

PEER = """#!{python}
# Drops equal pairs and those that speak of dogs.
import sys, yaml
from pathlib import Path
folder = Path(yaml.safe_load(Path(sys.argv[-1]).read_text())["common"]["output_directory"])
sides = [(folder / name).read_text(encoding="utf-8").split("\\n")[:-1] for name in ("rows.en", "rows.zh")]
kept = [pair for pair in dict.fromkeys(zip(*sides)) if "dog" not in pair[0]]
for place, name in enumerate(("kept.en", "kept.zh")):
    (folder / name).write_text("".join(pair[place] + "\\n" for pair in kept), encoding="utf-8")
"""


def test_the_peer_and_the_build_are_compared_row_by_row(tmp_path: Path) -> None:
    """Twelve rows: both drop the second copy of a pair, the peer alone the dog, the build alone Chinese for English."""
    command = tmp_path / "bin" / "opusfilter"
    command.parent.mkdir()
    command.write_text(PEER.format(python=sys.executable), encoding="utf-8")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    tsv = write_tsv(tmp_path / "rows.tsv", [*PAIRS, PAIRS[3], ("月亮", "月亮")])
    (tmp_path / "work").mkdir()
    found = compare_with_opusfilter(tmp_path / "bin" / "python", tsv, tmp_path / "work", runs=1)
    assert (found["rows"], len(found["opusfilter"]), len(found["ours"])) == (12, 1, 2)
    assert (found["kept_by_opusfilter"], found["kept_by_us"]) == (10, 10)
    assert found["agreement"] == round(10 / 12, 4)
    assert (found["only_us"], found["only_opusfilter"]) == ([list(PAIRS[0])], [["月亮", "月亮"]])
    assert min(each["wall"] for each in [*found["opusfilter"], *found["ours"]]) > 0
