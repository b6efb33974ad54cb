"""`python -m eval.xm3600`: zero-shot retrieval on Crossmodal-3600, Chinese and English, all captions of each image."""

from data.command import command
from eval.benchmark_main import Published, run

PUBLISHED = Published("eval.xm3600", "XM3600", language="zh", images=3600, captions=None)


def main() -> None:
    """Score a student beside its teacher; the options are those of `eval.options`."""
    run(PUBLISHED)


if __name__ == "__main__":
    command(main)
