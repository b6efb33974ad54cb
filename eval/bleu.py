"""How near translations come to the references: sacreBLEU and chrF, with intervals and signatures."""

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from distill.decoder import Language

TOKENIZERS: dict[Language, str] = {"zh": "zh", "en": "13a"}
DRAWS = 1000


def bleu_and_chrf(said: Sequence[str], references: Sequence[str], language: Language) -> dict[str, Any]:
    """Both scores of `said`, lower-cased as the student's tokenizers are, by bootstrap over sentences."""
    scores: dict[str, Any] = {"sentences": len(said)}
    for name, metric in (
        ("bleu", BLEU(tokenize=TOKENIZERS[language], lowercase=True)),
        ("chrf", CHRF(lowercase=True)),
    ):
        found = metric.corpus_score(list(said), [list(references)], n_bootstrap=DRAWS)
        scores[name] = round(found.score, 4)
        scores[f"{name}_ci95"] = [round(float(found._mean + side * found._ci), 4) for side in (-1, 1)]
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores
