"""`python scripts/export.py --run RUN --out STUDENT [--step N]`: a trained run as one folder to use and to publish."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the package distill

from data.cli import run_cli  # noqa: E402
from distill.export.main import main  # noqa: E402

if __name__ == "__main__":
    run_cli(main)
