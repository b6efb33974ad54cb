"""The model card of an exported student: what it is, how to use it, its scores, its recipe and its training data."""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast
from typing_extensions import TypedDict

from data.files import read_json, validated
from distill.export.folder import Writer
from distill.export.pair import PairPart
from distill.export.results import (
    WEIGHTS_FILE,
    BenchmarkResult,
    model_index,
    ratio_title,
    retrieval_lines,
    translation_lines,
)
from distill.train.config import RunConfig

TEMPLATE, PAIR_TEMPLATE = (Path(__file__).with_name(name) for name in ("model_card.md.jinja", "pair_card.md.jinja"))
CONTENTS = {
    "model.safetensors": "the encoder with its projection (CLIPTextModelWithProjection)",
    "text_encoder": "the encoder as a Stable Diffusion pipeline takes it, with `tokenizer/`",
    "comfyui": "a custom node for ComfyUI that loads this folder",
    "webui": "an extension for AUTOMATIC1111's WebUI and Forge that loads this folder",
    "onnx": "ONNX, opset 18, free batch and length: `model.onnx` in float32, `model_int8.onnx`",
    "web": "a page for a browser that runs the int8 model, with the tokenizer for JavaScript",
    "immich": "the text half of a model of Immich",
    "open_clip": "the whole CLIP with this text tower, for open_clip",
    "modules.json": "what makes the folder a sentence-transformers model",
    "decoder": "translates what the encoder understood into English: `load_student(...).read_back(text)`",
    "golden": "20 prompts with ids, states and features in float32, to check other runtimes against",
}
"""Files and folders of an export that the card describes where they are there."""


class CorpusSource(TypedDict):
    """A source of a corpus with its training pairs."""

    name: str
    domain: str
    license: str
    train: int


class CorpusReport(TypedDict):
    """The entries of a corpus's report.json that the card shows."""

    train_rows: int
    rows_rejected: int
    sources: list[CorpusSource]


@dataclass(frozen=True)
class CardInfo:
    """The content of a card besides the model; `report` is None where the corpus is not on this machine."""

    name: str
    license: str
    config: RunConfig
    report: CorpusReport | None
    results: tuple[BenchmarkResult, ...]


def read_card_info(name: str, license: str, config: RunConfig, results: tuple[BenchmarkResult, ...]) -> CardInfo:
    """The same with the report of the corpus that `config` names; a damaged report raises UserError."""
    path, report = config.data.corpus / "report.json", None
    if path.is_file():
        report = validated(read_json(path), CorpusReport, str(path), "build the corpus again")
    return CardInfo(name, license, config, report, results)


def card_writer(info: CardInfo) -> Writer:
    """A writer of README.md, to run after those of the files that it describes.

    A result of other weights than those of the folder raises UserError.
    """
    return functools.partial(_write_card, info)


def _write_card(
    info: CardInfo, folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> None:
    for result in info.results:
        result.check_weights(folder)
    card = ModelCard.from_template(
        metadata(info),
        template_path=str(TEMPLATE),
        name=info.name,
        config=model.config,
        million_weights=sum(weight.numel() for weight in model.parameters()) / 1e6,
        num_tokens=len(tokenizer),
        contents={name: text for name, text in CONTENTS.items() if (folder / name).exists()},
        shares=_share_lines(info.results),
        retrieval=retrieval_lines(info.results),
        translation=translation_lines(info.results),
        protocol=_protocol_line(info.results),
        recipe=_recipe(info.config),
        report=info.report,
    )
    (folder / "README.md").write_text(card.content, encoding="utf-8")


@dataclass(frozen=True)
class CardPart:
    """One encoder of a pair, for the card."""

    name: str
    config: CLIPTextConfig
    million_weights: float
    num_tokens: int
    padding: str
    step: int
    recipe: str


def pair_card(info: CardInfo, parts: Sequence[PairPart]) -> str:
    """The card of SDXL's two encoders; `info` is that of the first."""
    described = [
        CardPart(
            part.name, part.model.config, sum(weight.numel() for weight in part.model.parameters()) / 1e6,
            len(part.tokenizer), str(part.tokenizer.pad_token), part.run.step, _recipe(part.run.config),
        )
        for part in parts
    ]  # fmt: skip
    source = info.config.teacher.removesuffix("/text_encoder")
    card = ModelCard.from_template(
        metadata(info), template_path=str(PAIR_TEMPLATE), name=info.name, parts=described, report=info.report,
        pipeline=source if _is_hub_id(source) else "PIPELINE",
    )  # fmt: skip
    content: str = card.content
    return content


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not Path(name).exists()


def metadata(info: CardInfo) -> ModelCardData:
    """The Hub's metadata: languages, tags, licence, base model and the scores of the student as `model-index`."""
    teacher = info.config.teacher.removesuffix("/text_encoder")
    return ModelCardData(
        language=["zh", "en"],
        license=info.license,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["clip", "text-encoder", "stable-diffusion", "diffusers", "sentence-transformers", "chinese"],
        base_model=teacher if _is_hub_id(teacher) else None,
        model_name=info.name,
        eval_results=model_index(info.results) or None,
    )


def _share_lines(results: Sequence[BenchmarkResult]) -> list[str]:
    """List items of the card: the student's share of the teacher, each benchmark's fairest comparison first."""
    return [
        f"- {result.settings['benchmark']}: {ratio_title(name)}: {ratio['percent']:.2f} % "
        f"[{ratio['ci95'][0]:.2f}, {ratio['ci95'][1]:.2f}]"
        for result in results
        if result.scored_file == WEIGHTS_FILE
        for name, ratio in result.ratios.items()
        if ": " not in name  # one domain of a corpus
    ]


def _protocol_line(results: Sequence[BenchmarkResult]) -> str:
    """Protocol, length limit and precision of the results, each combination once."""
    settings = [result.settings for result in results]
    combinations = sorted({(each["protocol"], each["max_length"], each["precision"]) for each in settings})
    return "; ".join(f"{name}, at most {length} tokens, {precision}" for name, length, precision in combinations)


def _recipe(config: RunConfig) -> str:
    """Teacher, student, losses and training as YAML."""
    recipe = {key: _public(value) for key, value in asdict(config).items() if key not in ("data", "out_dir")}
    return yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False).rstrip()


def _public(value: Any) -> Any:  # noqa: ANN401  a value of the config
    """`value` with the last name alone of each path, whose folders are this machine's own."""
    if isinstance(value, dict):
        return {key: _public(each) for key, each in value.items()}
    return Path(value).name if isinstance(value, Path) or str(value).startswith(("/", "~", ".")) else value
