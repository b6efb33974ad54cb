"""What a score depends on, to be written beside it."""

from eval import bootstrap, provenance
from eval.benchmark import Benchmark
from eval.options import Options


def settings(name: str, benchmark: Benchmark, options: Options, transform: str, seconds: float) -> dict[str, object]:
    """Everything that the scores of `benchmark` depend on, as JSON values."""
    sources = [source for source in (options.student, options.clip, options.translator) if source]
    stored = options.image_features
    files = [*benchmark.files, *([stored] if stored else [])]
    return {
        "benchmark": name,
        "images": len(benchmark.images),
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
            [*files, *(path for source in sources for path in provenance.model_files(source))]
        ),
        "bootstrap": {"over": "images", "draws": bootstrap.DRAWS, "seed": bootstrap.SEED},
        "metric": "Chinese-CLIP: cosine in float32, stable order, a query hits if any positive is in the top k",
        "command": options.command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "seconds": round(seconds, 3),
    }
