"""`python -m eval.flickr30k`: retrieval on the English Flickr30K: what the student kept of its teacher."""

from data.command import command
from eval.benchmark_main import Published, run

PUBLISHED = Published("eval.flickr30k", "Flickr30K", language="en", images=1000, captions=5000)


def main() -> None:
    """Score a student beside its teacher; the options are those of `eval.options`."""
    run(PUBLISHED)


if __name__ == "__main__":
    command(main)
