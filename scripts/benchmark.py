"""`python scripts/benchmark.py data|train ...`: the measured speed of a part; `train --config FILE` of one run."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from data.cli import UserError, run_cli  # noqa: E402  # the path is set first


def main() -> None:
    """Run the benchmark that the first argument names."""
    part = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if part == "data":
        from eval.speed.corpus import main as run
    elif part == "train" and any(argument.split("=")[0] == "--config" for argument in sys.argv):
        from eval.speed.shipped_run import main as run
    elif part == "train":
        from eval.speed.training import main as run
    else:
        raise UserError(f"benchmark {part!r} is not one of data, train")
    run()


if __name__ == "__main__":
    run_cli(main)
