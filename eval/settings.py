"""What a score depends on, to be written beside it."""

from collections.abc import Sequence
from pathlib import Path

from eval import bootstrap, provenance
from eval.options import Options


def settings(
    name: str, images: int, files: Sequence[Path], options: Options, transform: str, seconds: float
) -> dict[str, object]:
    """Everything that the scores depend on, as JSON values.

    `images` is the size of the gallery; `files` are those that the benchmark was read from.
    """
    sources = [source for source in (options.student, options.clip, options.translator) if source]
    stored = [options.image_features] if options.image_features else []
    return {
        "benchmark": name,
        "images": images,
        "protocol": options.protocol.name,
        "transform": transform,
        "max_length": options.max_length,
        "precision": options.precision,
        "device": str(options.device),
        "student": options.student,
        "clip": options.clip,
        **({"translator": options.translator} if options.translator else {}),
        "data": options.data,
        "sha256": provenance.hashes(
            [*files, *stored, *(path for source in sources for path in provenance.model_files(source))]
        ),
        "bootstrap": {"over": "images", "draws": bootstrap.DRAWS, "seed": bootstrap.SEED},
        "metric": "Chinese-CLIP: cosine in float32, stable order, a query hits if any positive is in the top k",
        "command": options.command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "seconds": round(seconds, 3),
    }
