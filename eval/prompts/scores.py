"""Scores of aligned prompts: retrieval in both directions, cosine, read-out error; by group, and the worst prompts."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from typing_extensions import TypedDict

from data.cli import UserError
from distill.api import TextEncoder, load_student
from distill.geometry import Geometry, attention_errors, read_geometry
from distill.text_tower import StateLayer, encode_ids, padded_ids
from eval.metrics import CUTOFFS, Values, hits, mean_interval, positive_ranks
from eval.prompts.aligned import FORMS, TRANSLATION, AlignedPrompt
from eval.retrieval.models import TextTower, text_features
from eval.retrieval.result import Options
from eval.retrieval.score import Models
from eval.retrieval.translators import translate_to_english

Features = NDArray[np.float32]


class UnetReadout:
    """Student and teacher, float32 on `device`, and the geometry of the UNet that reads `state_layer` of them."""

    def __init__(
        self, student: str, teacher: str, geometry: Path, state_layer: StateLayer, device: torch.device
    ) -> None:
        """Load the three; UserError where the states have another width than the UNet reads."""
        self.geometry: Geometry = read_geometry(geometry, device, "--geometry")
        self.state_layer: StateLayer = state_layer
        self.encoders = {
            "student": load_student(student, device, "--student"), "teacher": load_student(teacher, device, "--clip"),
        }  # fmt: skip
        for model, encoder in self.encoders.items():
            if encoder.hidden_size != self.geometry.width:
                raise UserError(
                    f"--geometry {geometry}: its UNet reads states of width {self.geometry.width}, those of the "
                    f"{model} have {encoder.hidden_size}; compute it from a UNet of this teacher"
                )

    @torch.inference_mode()
    def errors(self, model: str, texts: Sequence[str], english: Sequence[str], batch_size: int = 16) -> Values:
        """[texts]: squared difference to the teacher's read-out of `english`, over its variance between prompts.

        The mean over the cross-attentions, as in the loss `readout`; texts are padded or cut to the full length.
        """
        sums = []
        for start in tqdm(range(0, len(texts), batch_size), desc="read-outs", unit="batch", leave=False, disable=None):
            rows = slice(start, start + batch_size)
            states = self._states(self.encoders[model], texts[rows])
            target = self._states(self.encoders["teacher"], english[rows])
            sums.append(attention_errors(self.geometry.layers, states, target, dims=(1, 2, 3)))
        errors, norms = torch.cat(sums, dim=1)
        relative = (errors / norms.mean(dim=0) / self.geometry.shares).mean(dim=1)
        values: Values = relative.cpu().numpy().astype(np.float64)
        return values

    def _states(self, encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
        model: Any = encoder.model  # load_student's, with projection
        ids = padded_ids(encoder.tokenizer, texts, encoder.max_length)
        return encode_ids(model, ids.to(model.device), self.state_layer).hidden_states


@dataclass(frozen=True)
class PromptScores:
    """One model on one form of the prompts, prompt by prompt.

    `measures` holds values [rows] by name: hits at k in percent in both directions, cosine, readout error; `rows` are
    the numbers of the prompts, `ranks` of the right English, from 0, and `found` the English prompt that came first.
    """

    model: str
    form: str
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    found: NDArray[np.int64]
    measures: dict[str, Values]

    def select(self, mask: NDArray[np.bool_]) -> dict[str, Values]:
        """The measures of the prompts in `mask` [prompts]."""
        return {name: values[mask[self.rows]] for name, values in self.measures.items()}

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"model": self.model, "form": self.form, **summary(self.measures)}


def summary(measures: dict[str, Values]) -> dict[str, Any]:
    """Number of prompts, mean of each measure, and its 95 % interval by bootstrap over prompts."""
    return {
        "prompts": len(next(iter(measures.values()))),
        **{name: round(float(values.mean()), 4) for name, values in measures.items()},
        "ci95": {name: [round(bound, 4) for bound in mean_interval(values)] for name, values in measures.items()},
    }


def _text(prompt: AlignedPrompt, form: str) -> str:
    """A prompt in a form; where it has no such form, its Chinese, for a translation its English."""
    return prompt.en if form == "en" else prompt.forms.get(form, prompt.en if form == TRANSLATION else prompt.zh)


def score_prompts(prompts: Sequence[AlignedPrompt], models: Models, options: Options) -> list[PromptScores]:
    """The student's Chinese first, then other forms, its English, the teacher's Chinese, and machine translations.

    The teacher on the form `zh_en`, a person's translation of the Chinese, is the fair ceiling: its English, too, has
    other words.
    """
    english = _encode(models.teacher, [prompt.en for prompt in prompts], options)
    positives = matching_rows(prompts)
    forms = [form for form in (*FORMS, TRANSLATION) if any(form in prompt.forms for prompt in prompts)]
    rows = []
    for model, form in (
        ("student", "zh"),
        *(("teacher" if form == TRANSLATION else "student", form) for form in forms),
        ("student", "en"),
        ("teacher", "zh"),
    ):
        tower = models.student if model == "student" else models.teacher
        features = _encode(tower, [_text(prompt, form) for prompt in prompts], options)
        lines = [number for number, prompt in enumerate(prompts) if form in ("zh", "en") or form in prompt.forms]
        rows.append(_score(model, form, features, english, positives, np.array(lines)))
    if options.translator is not None:
        texts = translate_to_english(options.translator, [prompt.zh for prompt in prompts], options.device)
        features = _encode(models.teacher, texts, options)
        rows.append(_score("mt+teacher", "zh", features, english, positives, np.arange(len(prompts))))
    return rows


def _encode(tower: TextTower, texts: Sequence[str], options: Options) -> Features:
    return text_features(tower, texts, options.protocol, options.max_length).features


def add_readout(row: PromptScores, prompts: Sequence[AlignedPrompt], readout: UnetReadout) -> PromptScores:
    """`row` with the read-out error of each prompt; as it is for translations, which have no states of their own."""
    if row.model not in readout.encoders:
        return row
    texts = [_text(prompts[number], row.form) for number in row.rows]
    errors = readout.errors(row.model, texts, [prompts[number].en for number in row.rows])
    return replace(row, measures={**row.measures, "readout": errors})


def matching_rows(prompts: Sequence[AlignedPrompt]) -> NDArray[np.int64]:
    """[pairs, 2]: each prompt with itself and with those that share its English or its Chinese."""
    rows_by_text: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        rows_by_text["en", prompt.en].append(number)
        rows_by_text["zh", prompt.zh].append(number)
    pairs = {(a, b) for rows in rows_by_text.values() for a in rows for b in rows}
    return np.array(sorted(pairs), dtype=np.int64)


def _score(
    model: str,
    form: str,
    features: Features,
    english: Features,
    positives: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> PromptScores:
    """Scores of `rows`; both galleries hold all prompts, so that every form is compared with as many."""
    to_english = positive_ranks(features, english, positives)[rows]
    to_chinese = positive_ranks(english, features, positives)[rows]
    measures = {"r1": 50 * (hits(to_english) + hits(to_chinese))[:, 0]}
    for direction, ranks in (("to_en", to_english), ("to_zh", to_chinese)):
        measures |= {f"{direction}_r{k}": 100 * hits(ranks)[:, i] for i, k in enumerate(CUTOFFS)}
    measures["cosine"] = (features[rows] * english[rows]).sum(axis=1).astype(np.float64)
    found = (features[rows] @ english.T).argmax(axis=1)
    return PromptScores(model, form, rows, to_english, found, measures)


class Baseline(TypedDict):
    """The entries of an earlier result that another student is compared with."""

    by_prompt: dict[str, list[float]]
    prompts_sha256: str


def prompts_sha256(prompts: Sequence[AlignedPrompt]) -> str:
    """SHA-256 of the texts in both languages, in order."""
    texts = "\n".join(f"{prompt.zh}\t{prompt.en}" for prompt in prompts)
    return hashlib.sha256(texts.encode()).hexdigest()


def paired_differences(by_prompt: dict[str, list[float]], baseline: dict[str, list[float]]) -> dict[str, Any]:
    """Mean of each measure less that of the baseline on the same prompts, with its interval by paired bootstrap."""
    differences = {name: np.array(values) - baseline[name] for name, values in by_prompt.items() if name in baseline}
    return summary(differences)


def group_scores(prompts: Sequence[AlignedPrompt], row: PromptScores) -> dict[str, dict[str, Any]]:
    """Scores by group ("kind", "category" ...) and its value, the worst R@1 first."""
    masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for number, prompt in enumerate(prompts):
        for group in prompt.groups:
            masks.setdefault(group, np.zeros(len(prompts), dtype=bool))[number] = True
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    summaries = {group: summary(row.select(mask)) for group, mask in masks.items()}
    for (name, value), scores in sorted(summaries.items(), key=lambda item: item[1]["r1"]):
        groups[name][value] = scores
    return dict(groups)


def over_length(prompts: Sequence[AlignedPrompt], models: Models, max_length: int) -> dict[str, float | int]:
    """Percent of prompts with more tokens than the towers have room for: Chinese, English, either of them."""
    lengths = {"zh": models.student, "en": models.teacher}
    limit = min(max_length, *(tower.max_length for tower in lengths.values()))
    over = {}
    for language, tower in lengths.items():
        ids = tower.tokenizer([_text(prompt, language) for prompt in prompts], verbose=False).input_ids
        over[language] = np.array([len(row) > limit for row in ids])
    shares = {**over, "either": over["zh"] | over["en"]}
    return {"tokens": limit, **{name: round(100 * float(mask.mean()), 4) for name, mask in shares.items()}}


def worst_prompts(prompts: Sequence[AlignedPrompt], row: PromptScores, count: int) -> list[dict[str, Any]]:
    """The prompts whose right English ranks lowest, of equal ranks the one with the lowest cosine first."""
    order = np.lexsort((row.measures["cosine"], -row.ranks))[: max(0, count)]
    return [
        {
            "zh": prompts[row.rows[i]].zh,
            "en": prompts[row.rows[i]].en,
            "found": prompts[row.found[i]].en,
            "rank": int(row.ranks[i]) + 1,
            "cosine": round(float(row.measures["cosine"][i]), 4),
            "groups": [f"{key}={value}" for key, value in prompts[row.rows[i]].groups if key != "with a form"],
        }
        for i in order.tolist()
    ]
