"""`python -m eval.coco_cn`: zero-shot retrieval on COCO-CN's test set, with COCO's English captions by --english."""

from data.command import command
from eval.benchmark_main import Published, run

PUBLISHED = Published("eval.coco_cn", "COCO-CN", language="zh", images=1000, captions=1053)


def main() -> None:
    """Score a student beside its teacher; the options are those of `eval.options`."""
    run(PUBLISHED)


if __name__ == "__main__":
    command(main)
