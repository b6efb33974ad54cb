"""`python scripts/quickstart.py`: from nothing to a scored bilingual student, in minutes on a CPU."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the package distill

from data.command import command  # noqa: E402
from eval.quickstart import main  # noqa: E402

if __name__ == "__main__":
    command(main)
