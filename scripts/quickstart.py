"""`python scripts/quickstart.py`: from nothing to a bilingual student, its scores and its pictures, in minutes."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the package distill

from jsonargparse import auto_cli  # noqa: E402

from data.cli import run_cli  # noqa: E402
from eval import quickstart  # noqa: E402


def main() -> None:
    """Read the command line and run."""
    auto_cli(quickstart.main, as_positional=False, exit_on_error=False)


if __name__ == "__main__":
    run_cli(main)
