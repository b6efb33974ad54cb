"""`python -m eval.flickr30k_cn`: zero-shot retrieval on Flickr30K-CN, or on any file in one of its layouts."""

from data.command import command
from eval.benchmark_main import Published, run

PUBLISHED = Published("eval.flickr30k_cn", "Flickr30K-CN", language="zh", images=1000, captions=5000)


def main() -> None:
    """Score a student beside its teacher; the options are those of `eval.options`."""
    run(PUBLISHED)


if __name__ == "__main__":
    command(main)
