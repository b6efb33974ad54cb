"""`python -m eval.muge`: zero-shot retrieval on MUGE's valid set; published is text to image alone."""

from data.command import command
from eval.benchmark_main import Published, run

PUBLISHED = Published("eval.muge", "MUGE", language="zh", images=29806, captions=5008)


def main() -> None:
    """Score a student beside its teacher; the options are those of `eval.options`."""
    run(PUBLISHED)


if __name__ == "__main__":
    command(main)
