"""`accelerate launch scripts/distill.py --config CONFIG.yaml [--train.lr 3e-4 ...]`: train a student, or go on."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the package distill

from data.cli import run_cli  # noqa: E402
from distill.train.main import main  # noqa: E402

if __name__ == "__main__":
    run_cli(main)
