"""`python -m eval.translation --run RUN --corpus CORPUS`: what a run's decoder makes of held-out sentences.

For every domain of CORPUS/valid and every direction that the decoder was trained on: sacreBLEU and chrF with their
signatures; and how often Chinese finds its English among the domain's sentences, and the other way round.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from tqdm import tqdm

from data.command import UserError, command
from distill.decoder import Language
from distill.speaker import Speaker
from distill.states import States
from distill.teacher import Teacher
from eval import provenance
from eval.held_out import Pairs, held_out
from eval.result import write_json

_TOKENIZERS: dict[Language, str] = {"zh": "zh", "en": "13a"}
_DRAWS = 1000
_SAMPLES = 5  # translations a domain and direction that the JSON shows


def run(arguments: list[str] | None = None) -> dict[str, Any]:
    """Read the command line, generate, score, print the table and write the JSON."""
    started = time.perf_counter()
    parser = ArgumentParser(prog="python -m eval.translation", exit_on_error=False, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run trained with losses.translation")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus whose held-out rows are translated")
    parser.add_argument("--step", type=int | None, help="checkpoint; by default the newest")
    parser.add_argument("--rows", type=int, default=500, help="held-out rows of each domain, from its first on")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences generated together")
    parser.add_argument("--device", type=str, default="cuda" if torch.cuda.is_available() else "cpu", help="of torch")
    parser.add_argument("--out", type=Path | None, help="result JSON to write")
    given = parser.parse_args(arguments)
    if given.rows < 2 or given.batch_size < 1:
        raise UserError("--rows must be at least 2 and --batch-size at least 1")
    if given.out is not None and (given.out.is_dir() or not given.out.absolute().parent.is_dir()):
        raise UserError(f"--out {given.out}: name a file in a folder that exists")
    every = held_out(given.corpus, given.rows)
    domains = {domain: pairs for domain, pairs in every.items() if len(pairs.en) > 1}  # one row retrieves nothing
    speaker = Speaker(given.run, given.step, torch.device(given.device))
    pretrained = speaker.config.load_teacher()
    teacher, words = Teacher(pretrained, torch.device(given.device)), pretrained.tokenizer
    result: dict[str, Any] = {"rows": [], "retrieval": [], "samples": []}
    for domain, pairs in tqdm(domains.items(), desc="domains", unit=" domains", leave=False):
        for direction in speaker.translation.weights:
            said = translated(speaker, pairs, direction, given.batch_size)
            language: Language = "zh" if direction.startswith("zh") else "en"
            result["rows"].append(
                {"domain": domain, "direction": direction, **score(said, pairs.side(language), language)}
            )
            shown = zip(pairs.en, pairs.zh, said, strict=True)
            samples = [{"en": en, "zh": zh, "said": text} for en, zh, text in list(shown)[:_SAMPLES]]
            result["samples"].append({"domain": domain, "direction": direction, "sentences": samples})
        ids = words(pairs.en, padding=True, truncation=True, max_length=speaker.slots, return_tensors="pt")["input_ids"]
        parts = [teacher(part.to(given.device)).pooled.cpu() for part in ids.split(given.batch_size)]
        sides = {
            "teacher-en": torch.cat(parts),
            **{f"student-{name}": _pooled(speaker, pairs.side(name), given.batch_size) for name in ("zh", "en")},
        }
        for english in ("teacher-en", "student-en"):
            found = retrieval(sides["student-zh"], sides[english])
            result["retrieval"].append({"domain": domain, "zh": "student-zh", "en": english, **found})
    _print(result)
    result["settings"] = {
        "benchmark": "translation",
        "run": str(given.run),
        "step": speaker.step,
        "corpus": str(given.corpus),
        "search": "greedy",
        "sha256": provenance.hashes(
            [*sorted((given.corpus / "valid").glob("*.parquet")), given.run / "config.yaml",
             given.run / "checkpoints" / f"step-{speaker.step:08d}" / "weights.safetensors"]
        ),
        "command": " ".join(["python", "-m", "eval.translation", *(sys.argv[1:] if arguments is None else arguments)]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip
    if given.out is not None:
        write_json(result, given.out)
    return result


def translated(speaker: Speaker, pairs: Pairs, direction: str, batch_size: int) -> list[str]:
    """What the decoder says for every pair, `direction` being such as `zh_from_en`."""
    language: Language = "zh" if direction.startswith("zh") else "en"
    texts = pairs.side(direction.rpartition("_")[2])
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    said = [""] * len(texts)
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        spoken = speaker.say(speaker.read([texts[row] for row in some]), language)
        for row, text in zip(some, spoken, strict=True):
            said[row] = text
    return said


def score(said: Sequence[str], references: Sequence[str], language: Language) -> dict[str, Any]:
    """BLEU and chrF of `said`, lower-cased as the tokenizers are, with bootstrap intervals and signatures."""
    scores: dict[str, Any] = {"sentences": len(said)}
    for name, metric in (
        ("bleu", BLEU(tokenize=_TOKENIZERS[language], lowercase=True)),
        ("chrf", CHRF(lowercase=True)),
    ):
        found = metric.corpus_score(list(said), [list(references)], n_bootstrap=_DRAWS)
        scores[name] = round(found.score, 4)
        scores[f"{name}_ci95"] = [round(float(found._mean + side * found._ci), 4) for side in (-1, 1)]
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores


def retrieval(chinese: torch.Tensor, english: torch.Tensor) -> dict[str, Any]:
    """Share of sentences, in percent, whose own other side is the nearest among all [n, dim]; ties hit."""
    similarity = F.normalize(chinese.float(), dim=1) @ F.normalize(english.float(), dim=1).T
    own = similarity.diagonal()
    hits = {
        "zh2en": (similarity.max(dim=1).values <= own).numpy(),
        "en2zh": (similarity.max(dim=0).values <= own).numpy(),
    }
    draws = np.random.default_rng(0).integers(len(own), size=(_DRAWS, len(own)))
    found: dict[str, Any] = {"sentences": len(own)}
    for way, hit in hits.items():
        low, high = np.percentile(hit[draws].mean(axis=1) * 100, [2.5, 97.5])
        found[way] = round(float(hit.mean() * 100), 4)
        found[f"{way}_ci95"] = [round(float(low), 4), round(float(high), 4)]
    return found


def _pooled(speaker: Speaker, texts: Sequence[str], batch_size: int) -> torch.Tensor:
    states: list[States] = [speaker.read(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
    return torch.cat([part.pooled.cpu() for part in states])


def _print(result: Mapping[str, Any]) -> None:
    print(f"{'domain':16}{'direction':14}{'BLEU':>8}{'chrF':>8}")
    for row in result["rows"]:
        print(f"{row['domain']:16}{row['direction']:14}{row['bleu']:8.2f}{row['chrf']:8.2f}")
    print(f"{'domain':16}{'English of':14}{'zh2en':>8}{'en2zh':>8}")
    for row in result["retrieval"]:
        print(f"{row['domain']:16}{row['en']:14}{row['zh2en']:8.1f}{row['en2zh']:8.1f}")


def main() -> None:
    """Score a run's decoder; see the head of this file."""
    run()


if __name__ == "__main__":
    command(main)
