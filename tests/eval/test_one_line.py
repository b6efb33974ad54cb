"""The real commands say one line of what is wrong, and nothing else: no tables, bars or warnings of libraries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "data" / "miniature" / "assets"
COMMANDS = {
    "eval.flickr30k_cn": f"--clip {ASSETS}/clip --data lines.jsonl --images . --title here --out result.json",
    "eval.generation": f"--pipeline {ASSETS}/pipeline --prompts lines.jsonl --out drawn",
}


@pytest.mark.parametrize("module", COMMANDS)
def test_a_student_that_is_not_there(module: str, tmp_path: Path) -> None:
    rows = [{"image": "a.png", "en": "a cat", "zh": "一只猫"}, {"image": "b.png", "en": "a dog", "zh": "一条狗"}]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [sys.executable, "-m", module, "--student", "./absent", *COMMANDS[module].split()]
    done = subprocess.run(words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --student")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]
