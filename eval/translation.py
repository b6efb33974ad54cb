"""`python -m eval.translation`: held-out sentences of a corpus, found across the languages and translated.

`--data` is a corpus; every domain of CORPUS/valid is scored by itself. The gallery is the teacher's features of the
English sentences: text to image is "Chinese finds its English", image to text the way back. With `--run`, BLEU and
chrF of what that run's decoder generates; with `--translator`, of its translations.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace
from tqdm import tqdm

from data.cli import UserError, command_line, run_cli
from data.files import write_json
from distill.student.base import Language
from eval.datasets.benchmark import CaptionSet, RetrievalBenchmark
from eval.metrics import bleu_and_chrf
from eval.pairs import Pairs, load_held_out
from eval.retrieval.command import common_options, make_parser
from eval.retrieval.result import OPENAI, Options, Ratio, RetrievalResult, ScoreRow, recall_ratios
from eval.retrieval.score import load_models, score_rows, score_settings, text_gallery
from eval.retrieval.translators import DecoderTranslator, translate_to_english

_MODULE = "eval.translation"
_GALLERY = "the teacher's English sentences"
_SAMPLES = 5  # translations of each domain and direction in the JSON


def parse_args(arguments: list[str] | None) -> tuple[Namespace, Options]:
    """The options of this benchmark, and those that every benchmark has."""
    parser = make_parser(_MODULE, "Held-out sentences of a corpus, found across the languages and translated.")
    parser.add_argument("--run", type=Path | None, help="the student's run, if it was trained with losses.translation")
    parser.add_argument("--step", type=int | None, help="checkpoint of --run; by default the newest")
    parser.add_argument("--rows", type=int, default=500, help="held-out rows of each domain, from its first on")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences that the decoder generates at a time")
    args = parser.parse_args(arguments)
    if args.rows < 2 or args.batch_size < 1:
        raise UserError("--rows must be at least 2 and --batch-size at least 1")
    if args.step is not None and args.run is None:
        raise UserError("--step: is a checkpoint of --run; give both")
    return args, common_options(args, OPENAI, command_line(_MODULE, arguments))


def run_translation(arguments: list[str] | None = None) -> dict[str, Any]:
    """Score every domain, print the tables and write the JSON."""
    start = time.monotonic()
    args, options = parse_args(arguments)
    domains = _domains(Path(options.data), args.rows)
    decoder = None if args.run is None else DecoderTranslator(args.run, args.step, options.device)
    models = load_models(options)
    english = _translations_by_text(options, domains)
    rows: list[ScoreRow] = []
    ratios: list[Ratio] = []
    translations: list[dict[str, Any]] = []
    for domain, pairs in tqdm(domains.items(), desc="domains", unit=" domains", leave=False, disable=None):
        sentences = bitext(pairs)
        gallery = text_gallery(models.teacher, sentences, options, _GALLERY)
        captions = [english[text] for text in sentences.captions["zh"].texts] if options.translator else None
        domain_rows = score_rows(sentences, models, gallery, options, captions)
        rows += [dataclasses.replace(row, domain=domain) for row in domain_rows]
        ratios += [dataclasses.replace(each, name=f"{domain}: {each.name}") for each in recall_ratios(domain_rows)]
        if decoder is not None:
            translations += [
                _translation_row(
                    domain, "decoder", direction, translate_pairs(decoder, pairs, direction, args.batch_size), pairs
                )
                for direction in decoder.translation.weights
            ]
        if options.translator:
            texts = [english[text] for text in pairs.zh]
            translations.append(_translation_row(domain, "mt", "en_from_zh", texts, pairs))
    settings = _settings(args, options, domains, decoder, time.monotonic() - start)
    result = RetrievalResult(tuple(rows), tuple(ratios), settings)
    print("\n".join([result.to_table(), *(_terminal_line(each) for each in translations)]))
    document = {**result.to_json(), "translations": translations}
    if options.out is not None:
        write_json(document, options.out)
    return document


def bitext(pairs: Pairs) -> RetrievalBenchmark:
    """Distinct Chinese sentences as captions of the distinct English ones; all translations of one are positives."""
    english = {text: index for index, text in enumerate(dict.fromkeys(pairs.en))}
    chinese = {text: index for index, text in enumerate(dict.fromkeys(pairs.zh))}
    positives = [(chinese[zh], english[en]) for en, zh in zip(pairs.en, pairs.zh, strict=True)]
    captions = {
        "zh": CaptionSet(tuple(chinese), np.unique(np.array(positives, dtype=np.int64), axis=0)),
        "en": CaptionSet(tuple(english), np.repeat(np.arange(len(english))[:, None], 2, axis=1)),
    }
    return RetrievalBenchmark(tuple(english), captions, None, ())


def translate_pairs(decoder: DecoderTranslator, pairs: Pairs, direction: str, batch_size: int) -> list[str]:
    """What the decoder generates for every pair; `direction` is such as `zh_from_en`."""
    texts = pairs.sentences(direction.rpartition("_")[2])
    return decoder.translate(texts, _language(direction), batch_size)


def _domains(corpus: Path, rows: int) -> dict[str, Pairs]:
    """The domains with two different English sentences or more."""
    domains = {domain: pairs for domain, pairs in load_held_out(corpus, rows).items() if len(set(pairs.en)) > 1}
    if not domains:
        raise UserError(f"--data {corpus}: no domain of its valid/ has two different sentences; hold out more rows")
    return domains


def _translations_by_text(options: Options, domains: Mapping[str, Pairs]) -> dict[str, str]:
    """Each Chinese sentence of `domains` in the translator's English; {} without one."""
    if options.translator is None:
        return {}
    texts = list(dict.fromkeys(text for pairs in domains.values() for text in pairs.zh))
    return dict(zip(texts, translate_to_english(options.translator, texts, options.device), strict=True))


def _translation_row(domain: str, model: str, direction: str, generated: list[str], pairs: Pairs) -> dict[str, Any]:
    language = _language(direction)
    samples = list(zip(pairs.en, pairs.zh, generated, strict=True))[:_SAMPLES]
    return {
        "domain": domain,
        "model": model,
        "direction": direction,
        **bleu_and_chrf(generated, pairs.sentences(language), language),
        "samples": [{"en": en, "zh": zh, "said": text} for en, zh, text in samples],
    }


def _language(direction: str) -> Language:
    return "zh" if direction.startswith("zh") else "en"


def _settings(
    args: Namespace,
    options: Options,
    domains: Mapping[str, Pairs],
    decoder: DecoderTranslator | None,
    seconds: float,
) -> dict[str, object]:
    sentences = tuple(text for pairs in domains.values() for text in dict.fromkeys(pairs.en))
    shards = sorted((Path(options.data) / "valid").glob("*.parquet"))
    benchmark = RetrievalBenchmark(sentences, {}, None, (*shards, *(decoder.files if decoder else ())))
    settings = score_settings(options.title or "translation", benchmark, _GALLERY, options, seconds)
    settings |= {"rows_per_domain": args.rows}
    if decoder is not None:
        settings |= {"run": str(args.run), "step": decoder.step, "search": "greedy"}
    return settings


def _terminal_line(row: Mapping[str, Any]) -> str:
    low, high = row["bleu_ci95"]
    where = f"{row['domain']:16} {row['model']:8} {row['direction']:11}"
    return f"{where} BLEU {row['bleu']:6.2f} [{low:.2f}, {high:.2f}]  chrF {row['chrf']:6.2f}"


if __name__ == "__main__":
    run_cli(run_translation)
