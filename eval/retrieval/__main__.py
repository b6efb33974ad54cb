"""`python -m eval.retrieval BENCHMARK ...`: zero-shot image-text retrieval of a student beside its teacher."""

import sys

from data.cli import UserError, run_cli
from eval.datasets.benchmark import BENCHMARKS
from eval.retrieval.command import run_benchmark


def main() -> None:
    """Score the benchmark of the first argument; the others are the options of `eval.retrieval.command`."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(f"usage: python -m eval.retrieval BENCHMARK ...\nBENCHMARK is one of {', '.join(BENCHMARKS)}")
        print("python -m eval.retrieval BENCHMARK --help lists the options")
        return
    if name not in BENCHMARKS:
        raise UserError(f"python -m eval.retrieval BENCHMARK ...: {name!r} is not one of {', '.join(BENCHMARKS)}")
    run_benchmark(BENCHMARKS[name], arguments)


if __name__ == "__main__":
    run_cli(main)
