"""`python scripts/build_miniature.py --work runs/miniature --out DIR [--until clip]`: train the miniature's models."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the packages

from jsonargparse import auto_cli  # noqa: E402

from data.cli import run_cli  # noqa: E402
from eval.miniature.build import BuildConfig, build_models  # noqa: E402


def main() -> None:
    """Read the command line and build."""
    build_models(auto_cli(BuildConfig, as_positional=False, exit_on_error=False))


if __name__ == "__main__":
    run_cli(main)
