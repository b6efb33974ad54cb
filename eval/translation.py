"""`python -m eval.translation`: a corpus's held-out sentences, found across the languages and translated.

`--data` is a corpus; every domain of CORPUS/valid is scored by itself. Its gallery is what the teacher makes of the
English sentences: text to image is then "Chinese finds its English", image to text the way back, in the rows of every
benchmark. With `--run`, BLEU and chrF of what the decoder of that run says; with `--translator`, of its translations.

A run's student together with its auxiliary decoder: what reads a sentence and says it.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import regex
import torch
from jsonargparse import Namespace
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import write_json
from distill.losses import Translation
from distill.losses.translation import Decoder, Language
from distill.text_tower import EncoderOutput
from distill.train import checkpoint
from distill.train.run_folder import open_run
from eval.datasets.benchmark import CaptionSet, RetrievalBenchmark, no_image
from eval.held_out import Pairs, load_held_out
from eval.metrics import bleu_and_chrf
from eval.provenance import command_line
from eval.retrieval.options import Options, common_options, make_parser
from eval.retrieval.preprocess import OPENAI
from eval.retrieval.result import Ratio, RetrievalResult, ScoreRow, result_json, terminal_table
from eval.retrieval.score import (
    load_models,
    recall_ratios,
    score_rows,
    score_settings,
    teacher_text_gallery,
    translate_to_english,
)

_SPACES = regex.compile(r"(?<=[\p{Han}\u3000-\u303f\uff00-\uffef]) +| +(?=[\p{Han}\u3000-\u303f\uff00-\uffef])")


class DecoderTranslator:
    """Student and decoder of a checkpoint, float32, in evaluation mode, on `device`."""

    def __init__(self, run: Path, step: int | None, device: torch.device) -> None:
        """Load the run's checkpoint of `step`, or its newest; UserError where it has no decoder."""
        opened = open_run(run, step)
        translation = opened.config.losses.translation
        if translation is None:
            raise UserError(f"--run {run}: has no decoder; train one with losses.translation")
        self.config, self.step, self.translation = opened.config, opened.step, translation
        self.student, self.tokenizer, self._device = opened.student, opened.tokenizer, device
        self._decoder = _build_decoder(
            translation, self.student.output_table().shape[1], opened.student.state_width, self.max_length
        )
        weights = {checkpoint.DECODER + name: weight for name, weight in checkpoint.trainable(self._decoder).items()}
        all_weights = {**checkpoint.trainable(self.student), **weights}
        checkpoint.load_weights(run / "checkpoints", self.step, all_weights, use_ema=True)
        self.student.to(device).eval()
        self._decoder.to(device).eval()

    @property
    def max_length(self) -> int:
        """Most tokens of a sentence."""
        return self.student.max_length

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> EncoderOutput:
        """The student's states of `texts`, padded to the longest and cut at the student's slots."""
        ids = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        states: EncoderOutput = self.student(ids["input_ids"].to(self._device))
        return states

    @torch.inference_mode()
    def generate(self, states: EncoderOutput, language: Language) -> list[str]:
        """The likeliest sentence for each row of `states`; without the spaces that stand beside Chinese."""
        start, end = self.tokenizer("").input_ids[0], self.tokenizer("").input_ids[-1]
        generated = self._decoder.generate(self.student, states, start, end, language, self.max_length - 1)
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [_SPACES.sub("", text).strip() for text in texts]


def _build_decoder(config: Translation, width: int, state_width: int, max_length: int) -> Decoder:
    return Decoder(config.decoder, width, state_width, max_length)


_MODULE = "eval.translation"
_SAMPLES = 5  # translations a domain and direction that the JSON shows


def parse_args(arguments: list[str] | None) -> tuple[Namespace, Options]:
    """What is this benchmark's own, and what every benchmark has."""
    parser = make_parser(_MODULE, "Held-out sentences of a corpus, found across the languages and translated.")
    parser.add_argument("--run", type=Path | None, help="the student's run, if it was trained with losses.translation")
    parser.add_argument("--step", type=int | None, help="checkpoint of --run; by default the newest")
    parser.add_argument("--rows", type=int, default=500, help="held-out rows of each domain, from its first on")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences that the decoder says together")
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
    speaker = None if args.run is None else DecoderTranslator(args.run, args.step, options.device)
    models = load_models(options)
    english = _translations_by_text(options, domains)
    rows: list[ScoreRow] = []
    ratios: list[Ratio] = []
    translations: list[dict[str, Any]] = []
    for domain, pairs in tqdm(domains.items(), desc="domains", unit=" domains", leave=False, disable=None):
        sentences = bitext(pairs)
        gallery = teacher_text_gallery(models.teacher, sentences, options)
        english_captions = [english[text] for text in sentences.captions["zh"].texts] if options.translator else None
        domain_rows = score_rows(sentences, models, gallery, options, english_captions)
        rows += [dataclasses.replace(row, domain=domain) for row in domain_rows]
        ratios += [dataclasses.replace(each, name=f"{domain}: {each.name}") for each in recall_ratios(domain_rows)]
        if speaker is not None:
            for direction in speaker.translation.weights:
                texts = generate_translations(speaker, pairs, direction, args.batch_size)
                translations.append(_translation_row(domain, "decoder", direction, texts, pairs))
        if options.translator:
            translations.append(
                _translation_row(domain, "mt", "en_from_zh", [english[text] for text in pairs.zh], pairs)
            )
    run_settings = score_settings(
        options.title or "translation",
        sum(len(set(pairs.en)) for pairs in domains.values()),
        [*sorted((Path(options.data) / "valid").glob("*.parquet")), *_run_files(args.run, speaker)],
        options,
        "the teacher's English sentences",
        time.monotonic() - start,
    )
    translation_settings = {"rows_per_domain": args.rows}
    if speaker is not None:
        translation_settings |= {"run": str(args.run), "step": speaker.step, "search": "greedy"}
    result = RetrievalResult(
        tuple(rows),
        tuple(ratios),
        run_settings | translation_settings,
        tuple(each for row in rows for each in row.examples),
    )
    print("\n".join([terminal_table(result), *(_line(each) for each in translations)]))
    document = {**result_json(result), "translations": translations}
    if options.out is not None:
        write_json(document, options.out)
    return document


def bitext(pairs: Pairs) -> RetrievalBenchmark:
    """Distinct Chinese sentences as captions of the distinct English ones; all translations of a sentence are right."""
    english = {text: place for place, text in enumerate(dict.fromkeys(pairs.en))}
    chinese = {text: place for place, text in enumerate(dict.fromkeys(pairs.zh))}
    right = [(chinese[zh], english[en]) for en, zh in zip(pairs.en, pairs.zh, strict=True)]
    captions = {
        "zh": CaptionSet(tuple(chinese), np.unique(np.array(right, dtype=np.int64), axis=0)),
        "en": CaptionSet(tuple(english), np.repeat(np.arange(len(english))[:, None], 2, axis=1)),
    }
    return RetrievalBenchmark(tuple(english), captions, no_image, ())


def generate_translations(speaker: DecoderTranslator, pairs: Pairs, direction: str, batch_size: int) -> list[str]:
    """What the decoder says for every pair, `direction` being such as `zh_from_en`."""
    language, texts = _language(direction), pairs.sentences(direction.rpartition("_")[2])
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    generated = [""] * len(texts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        batch_texts = speaker.generate(speaker.encode([texts[row] for row in batch]), language)
        for row, text in zip(batch, batch_texts, strict=True):
            generated[row] = text
    return generated


def _domains(corpus: Path, rows: int) -> dict[str, Pairs]:
    """The domains in which something can be mistaken for something else."""
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
        "domain": domain, "model": model, "direction": direction,
        **bleu_and_chrf(generated, pairs.sentences(language), language),
        "samples": [{"en": en, "zh": zh, "said": text} for en, zh, text in samples],
    }  # fmt: skip


def _language(direction: str) -> Language:
    return "zh" if direction.startswith("zh") else "en"


def _run_files(run: Path | None, speaker: DecoderTranslator | None) -> list[Path]:
    if run is None or speaker is None:
        return []
    return [run / "config.yaml", run / "checkpoints" / f"step-{speaker.step:08d}" / "weights.safetensors"]


def _line(each: Mapping[str, Any]) -> str:
    low, high = each["bleu_ci95"]
    where = f"{each['domain']:16} {each['model']:8} {each['direction']:11}"
    return f"{where} BLEU {each['bleu']:6.2f} [{low:.2f}, {high:.2f}]  chrF {each['chrf']:6.2f}"


def main() -> None:
    """Score a student beside its teacher, and what translates; see the head of this file."""
    run_translation()


if __name__ == "__main__":
    run_cli(main)
