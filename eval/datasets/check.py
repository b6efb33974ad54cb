"""What must hold of every benchmark before it is scored, and files that are known to be wrong."""

import re

from data.command import UserError
from eval.benchmark import Benchmark

PART_OF_SPEECH = re.compile(r"(\S[/_][A-Za-z]{1,3}\d?(\s|$)){2}")

SURROGATE = re.compile(r"[\ud800-\udfff]")


def checked(benchmark: Benchmark, name: str) -> Benchmark:
    """`benchmark` itself, where its captions are text without part-of-speech tags; else UserError."""
    if not benchmark.captions:
        raise UserError(f"{name}: no captions; the file is empty")
    for language, captions in benchmark.captions.items():
        broken = next((text for text in captions.texts if SURROGATE.search(text)), None)
        if broken is not None:
            raise UserError(f"{name}: a caption is no text, it holds half a character: {broken[:40]!r}; write it again")
        tagged = sum(PART_OF_SPEECH.search(text) is not None for text in captions.texts[:1000])
        if tagged > 0.3 * min(len(captions.texts), 1000):
            example = next(text for text in captions.texts if PART_OF_SPEECH.search(text))
            raise UserError(
                f"{name}: its {language} captions carry part-of-speech tags ({example[:40]!r}), as CLIP_benchmark's "
                "Chinese Flickr30K does; use the human captions of Flickr30K-CN"
            )
    return benchmark
