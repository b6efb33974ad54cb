"""`python scripts/demo.py`: a page of this machine on which teacher and student draw and search side by side."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the package distill

from data.cli import run_cli  # noqa: E402
from eval.demo.page import main  # noqa: E402

if __name__ == "__main__":
    run_cli(main)
