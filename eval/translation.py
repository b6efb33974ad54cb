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

from data.cli import UserError, command
from data.files import write_json
from distill.losses import Translation
from distill.losses.translation import Decoder, Language
from distill.text_tower import States
from distill.train import checkpoint
from distill.train.run_folder import open_run
from eval.datasets.benchmark import Benchmark, Captions, no_picture
from eval.held_out import Pairs, held_out
from eval.metrics import bleu_and_chrf
from eval.provenance import command_line
from eval.retrieval.options import Options, parser_of, shared
from eval.retrieval.preprocess import OPENAI
from eval.retrieval.result import Ratio, Result, Row, result_json, table
from eval.retrieval.score import english_gallery, load_models, ratios_of, rows_of, settings, translated

_SPACES = regex.compile(r"(?<=[\p{Han}\u3000-\u303f\uff00-\uffef]) +| +(?=[\p{Han}\u3000-\u303f\uff00-\uffef])")


class Speaker:
    """Student and decoder of a checkpoint, float32, in evaluation mode, on `device`."""

    def __init__(self, run: Path, step: int | None, device: torch.device) -> None:
        """Load the run's checkpoint of `step`, or its newest; UserError where it has no decoder."""
        opened = open_run(run, step)
        asked = opened.config.losses.translation
        if asked is None:
            raise UserError(f"--run {run}: has no decoder; train one with losses.translation")
        self.config, self.step, self.translation = opened.config, opened.step, asked
        self.student, self.tokenizer, self._device = opened.student, opened.tokenizer, device
        self._decoder = _decoder(asked, self.student.output_table().shape[1], opened.student.state_width, self.slots)
        weights = {checkpoint.DECODER + name: weight for name, weight in checkpoint.trainable(self._decoder).items()}
        every = {**checkpoint.trainable(self.student), **weights}
        checkpoint.load_weights(run / "checkpoints", self.step, every, to_use=True)
        self.student.to(device).eval()
        self._decoder.to(device).eval()

    @property
    def slots(self) -> int:
        """Most tokens of a sentence."""
        return self.student.slots

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> States:
        """The student's states of `texts`, padded to the longest and cut at the student's slots."""
        ids = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.slots, return_tensors="pt")
        states: States = self.student(ids["input_ids"].to(self._device))
        return states

    @torch.inference_mode()
    def say(self, states: States, language: Language) -> list[str]:
        """The likeliest sentence for each row of `states`; without the spaces that stand beside Chinese."""
        start, end = self.tokenizer("").input_ids[0], self.tokenizer("").input_ids[-1]
        said = self._decoder.generate(self.student, states, start, end, language, self.slots - 1)
        texts = self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return [_SPACES.sub("", text).strip() for text in texts]


def _decoder(asked: Translation, width: int, state_width: int, slots: int) -> Decoder:
    return Decoder(asked.decoder, width, state_width, slots)


_MODULE = "eval.translation"
_SAMPLES = 5  # translations a domain and direction that the JSON shows


def parse(arguments: list[str] | None) -> tuple[Namespace, Options]:
    """What is this benchmark's own, and what every benchmark has."""
    parser = parser_of(_MODULE, "Held-out sentences of a corpus, found across the languages and translated.")
    parser.add_argument("--run", type=Path | None, help="the student's run, if it was trained with losses.translation")
    parser.add_argument("--step", type=int | None, help="checkpoint of --run; by default the newest")
    parser.add_argument("--rows", type=int, default=500, help="held-out rows of each domain, from its first on")
    parser.add_argument("--batch-size", type=int, default=64, help="sentences that the decoder says together")
    given = parser.parse_args(arguments)
    if given.rows < 2 or given.batch_size < 1:
        raise UserError("--rows must be at least 2 and --batch-size at least 1")
    if given.step is not None and given.run is None:
        raise UserError("--step: is a checkpoint of --run; give both")
    return given, shared(given, OPENAI, command_line(_MODULE, arguments))


def run(arguments: list[str] | None = None) -> dict[str, Any]:
    """Score every domain, print the tables and write the JSON."""
    began = time.monotonic()
    given, options = parse(arguments)
    domains = _domains(Path(options.data), given.rows)
    speaker = None if given.run is None else Speaker(given.run, given.step, options.device)
    models = load_models(options)
    english = _by_translator(options, domains)
    rows: list[Row] = []
    ratios: list[Ratio] = []
    said: list[dict[str, Any]] = []
    for domain, pairs in tqdm(domains.items(), desc="domains", unit=" domains", leave=False, disable=None):
        sentences = bitext(pairs)
        gallery = english_gallery(models.teacher, sentences, options)
        spoken = [english[text] for text in sentences.captions["zh"].texts] if options.translator else None
        mine = rows_of(sentences, models, gallery, options, spoken)
        rows += [dataclasses.replace(row, domain=domain) for row in mine]
        ratios += [dataclasses.replace(each, name=f"{domain}: {each.name}") for each in ratios_of(mine)]
        if speaker is not None:
            for direction in speaker.translation.weights:
                texts = spoken_by(speaker, pairs, direction, given.batch_size)
                said.append(_translation(domain, "decoder", direction, texts, pairs))
        if options.translator:
            said.append(_translation(domain, "mt", "en_from_zh", [english[text] for text in pairs.zh], pairs))
    told = settings(
        options.title or "translation",
        sum(len(set(pairs.en)) for pairs in domains.values()),
        [*sorted((Path(options.data) / "valid").glob("*.parquet")), *_run_files(given.run, speaker)],
        options,
        "the teacher's English sentences",
        time.monotonic() - began,
    )
    own = {"rows_per_domain": given.rows}
    if speaker is not None:
        own |= {"run": str(given.run), "step": speaker.step, "search": "greedy"}
    result = Result(tuple(rows), tuple(ratios), told | own, tuple(each for row in rows for each in row.examples))
    print("\n".join([table(result), *(_line(each) for each in said)]))
    whole = {**result_json(result), "translations": said}
    if options.out is not None:
        write_json(whole, options.out)
    return whole


def bitext(pairs: Pairs) -> Benchmark:
    """Distinct Chinese sentences as captions of the distinct English ones; all translations of a sentence are right."""
    english = {text: place for place, text in enumerate(dict.fromkeys(pairs.en))}
    chinese = {text: place for place, text in enumerate(dict.fromkeys(pairs.zh))}
    right = [(chinese[zh], english[en]) for en, zh in zip(pairs.en, pairs.zh, strict=True)]
    captions = {
        "zh": Captions(tuple(chinese), np.unique(np.array(right, dtype=np.int64), axis=0)),
        "en": Captions(tuple(english), np.repeat(np.arange(len(english))[:, None], 2, axis=1)),
    }
    return Benchmark(tuple(english), captions, no_picture, ())


def spoken_by(speaker: Speaker, pairs: Pairs, direction: str, batch_size: int) -> list[str]:
    """What the decoder says for every pair, `direction` being such as `zh_from_en`."""
    language, texts = _language(direction), pairs.side(direction.rpartition("_")[2])
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    said = [""] * len(texts)
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        spoken = speaker.say(speaker.read([texts[row] for row in some]), language)
        for row, text in zip(some, spoken, strict=True):
            said[row] = text
    return said


def _domains(corpus: Path, rows: int) -> dict[str, Pairs]:
    """The domains in which something can be mistaken for something else."""
    found = {domain: pairs for domain, pairs in held_out(corpus, rows).items() if len(set(pairs.en)) > 1}
    if not found:
        raise UserError(f"--data {corpus}: no domain of its valid/ has two different sentences; hold out more rows")
    return found


def _by_translator(options: Options, domains: Mapping[str, Pairs]) -> dict[str, str]:
    """Each Chinese sentence of `domains` in the translator's English; {} without one."""
    if options.translator is None:
        return {}
    texts = list(dict.fromkeys(text for pairs in domains.values() for text in pairs.zh))
    return dict(zip(texts, translated(options.translator, texts, options.device), strict=True))


def _translation(domain: str, model: str, direction: str, said: list[str], pairs: Pairs) -> dict[str, Any]:
    language = _language(direction)
    shown = list(zip(pairs.en, pairs.zh, said, strict=True))[:_SAMPLES]
    return {
        "domain": domain, "model": model, "direction": direction,
        **bleu_and_chrf(said, pairs.side(language), language),
        "samples": [{"en": en, "zh": zh, "said": text} for en, zh, text in shown],
    }  # fmt: skip


def _language(direction: str) -> Language:
    return "zh" if direction.startswith("zh") else "en"


def _run_files(run: Path | None, speaker: Speaker | None) -> list[Path]:
    if run is None or speaker is None:
        return []
    return [run / "config.yaml", run / "checkpoints" / f"step-{speaker.step:08d}" / "weights.safetensors"]


def _line(each: Mapping[str, Any]) -> str:
    low, high = each["bleu_ci95"]
    where = f"{each['domain']:16} {each['model']:8} {each['direction']:11}"
    return f"{where} BLEU {each['bleu']:6.2f} [{low:.2f}, {high:.2f}]  chrF {each['chrf']:6.2f}"


def main() -> None:
    """Score a student beside its teacher, and what translates; see the head of this file."""
    run()


if __name__ == "__main__":
    command(main)
