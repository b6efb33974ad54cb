"""`python -m eval.flickr30k_cn ...`: short for `python -m eval.retrieval flickr30k-cn ...`."""

from data.cli import run_cli
from eval.datasets.benchmark import BENCHMARKS
from eval.retrieval.command import run_benchmark


def main() -> None:
    """Score Flickr30K-CN, or any file in one of its layouts; the options are those of `eval.retrieval.command`."""
    run_benchmark(BENCHMARKS["flickr30k-cn"], module="eval.flickr30k_cn")


if __name__ == "__main__":
    run_cli(main)
