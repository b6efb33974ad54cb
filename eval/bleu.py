"""How near translations come to the references: sacreBLEU and chrF, with intervals and signatures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF, CHRFScore

from distill.decoder import Language

TOKENIZERS: dict[Language, str] = {"zh": "zh", "en": "13a"}
DRAWS = 1000


class _Bleu(BLEU):
    """BLEU whose every drawn score is a Python float: sacreBLEU makes no interval of float32 scores and a plain 0."""

    def _compute_score_from_stats(self, stats: list[int]) -> BLEUScore:
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


class _ChrF(CHRF):
    """The same of chrF."""

    def _compute_score_from_stats(self, stats: list[int]) -> CHRFScore:
        return super()._compute_score_from_stats(np.asarray(stats).tolist())


def bleu_and_chrf(said: Sequence[str], references: Sequence[str], language: Language) -> dict[str, Any]:
    """Both scores of `said`, lower-cased as the student's tokenizers are, by bootstrap over sentences."""
    scores: dict[str, Any] = {"sentences": len(said)}
    for name, metric in (
        ("bleu", _Bleu(tokenize=TOKENIZERS[language], lowercase=True)),
        ("chrf", _ChrF(lowercase=True)),
    ):
        found = metric.corpus_score(list(said), [list(references)], n_bootstrap=DRAWS)
        scores[name] = round(found.score, 4)
        scores[f"{name}_ci95"] = [round(float(found._mean + side * found._ci), 4) for side in (-1, 1)]
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores
