"""What must hold of every benchmark before it is scored, and files that are known to be wrong."""

import re

from data.command import UserError
from eval.benchmark import Benchmark

PART_OF_SPEECH = re.compile(r"(\S/[a-z]{1,2}\d?(\s|$)){2}")


def checked(benchmark: Benchmark, name: str) -> Benchmark:
    """`benchmark` itself, where it holds captions and none carry part-of-speech tags; else UserError."""
    if not benchmark.captions:
        raise UserError(f"{name}: no captions; the file is empty")
    for language, captions in benchmark.captions.items():
        tagged = sum(PART_OF_SPEECH.search(text) is not None for text in captions.texts[:1000])
        if tagged > 0.3 * min(len(captions.texts), 1000):
            example = next(text for text in captions.texts if PART_OF_SPEECH.search(text))
            raise UserError(
                f"{name}: its {language} captions carry part-of-speech tags ({example[:40]!r}), as CLIP_benchmark's "
                "Chinese Flickr30K does; use the human captions of Flickr30K-CN"
            )
    return benchmark
