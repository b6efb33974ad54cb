"""What a pipeline draws of scenes said in its own English, read back by the recogniser."""

import numpy as np
from tqdm import tqdm

from data.miniature.corpus import TEST_SAYING
from data.miniature.language import say
from data.miniature.scene import Scene
from eval.recogniser import Agreement, Recogniser, agree, read
from eval.twins.conditioning import own_conditioner
from eval.twins.sampling import Drawing, Pipeline, draw, noise, pictures


def drawing_scores(
    pipeline: Pipeline,
    recogniser: Recogniser,
    scenes: list[Scene],
    seeds: int,
    how: Drawing | None = None,
) -> dict[str, float]:
    """Shares of things drawn in the right kind and colour and of scenes read right, `seeds` pictures a scene."""
    how = how or Drawing(steps=20, guidance=4.0)
    teacher = own_conditioner(pipeline)
    said = [say(s, ("caption", "prompt")[i % 2], TEST_SAYING + i, "train").en for i, s in enumerate(scenes)]
    states, empty = teacher.states(said), teacher.states([""])
    found: list[Agreement] = []
    cases = [(row, seed) for seed in range(seeds) for row in range(len(scenes))]
    for start in tqdm(range(0, len(cases), how.batch), desc="pictures", mininterval=5):
        some = cases[start : start + how.batch]
        begin = noise(pipeline, [seed * 1_000_003 + row for row, seed in some])
        rows = [row for row, _ in some]
        drawn = pictures(pipeline, draw(pipeline, begin, states[rows], empty, how).latents[-1])
        found += [agree(scenes[row], one) for row, one in zip(rows, read(recogniser, drawn), strict=True)]
    shares = {
        key: float(np.mean([getattr(one, key) for one in found]))
        for key in ("exact", "counts", "sizes", "relations", "background", "all_but_size")
    }
    return {"things": sum(one.found for one in found) / sum(one.things for one in found), **shares}
