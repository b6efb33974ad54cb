"""The same as `python -m data.build`, for those who look for scripts."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from data.build.__main__ import main  # noqa: E402  # the path is set first
from data.cli import run_cli  # noqa: E402

if __name__ == "__main__":
    run_cli(main)
