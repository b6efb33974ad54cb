"""`python -m eval.flickr30k_cn`: zero-shot retrieval on Flickr30K-CN, or on any file in one of its layouts."""

from data.command import command
from eval.benchmark_main import run

SIZE = (1000, 5000)
"""Images and Chinese captions of the published test set."""


def main() -> None:
    """Score a student beside its teacher; the options are those of `eval.options`."""
    run("eval.flickr30k_cn", "Flickr30K-CN", SIZE)


if __name__ == "__main__":
    command(main)
