"""The model card: what the student is, how it was made and from what, what it scores, how to use it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast
from typing_extensions import TypedDict

from data.files import read_json, validated
from distill.export.folder import Writer
from distill.export.results import BenchmarkResult, check_same_weights, model_index, read_results, results_section


class CorpusSource(TypedDict):
    """One of a corpus's, with its training pairs."""

    name: str
    domain: str
    license: str
    train: int


class CorpusReport(TypedDict):
    """What the card relies on in a corpus's report.json."""

    train_rows: int
    rows_rejected: int
    sources: list[CorpusSource]


@dataclass(frozen=True)
class CardInfo:
    """What the card tells besides the model: the run's config, the corpus's report, results; the first may be {}."""

    name: str
    license: str
    config: dict[str, Any]
    report: CorpusReport | None
    results: tuple[BenchmarkResult, ...]


def read_card_info(name: str, license: str, run: Path, results: Sequence[Path]) -> CardInfo:
    """Read the config of `run`, the report of its corpus, and the result files of the benchmarks."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    corpus = config.get("data", {}).get("corpus")
    path = Path(corpus or "") / "report.json"
    has_report = corpus and path.is_file()
    report = validated(read_json(path), CorpusReport, str(path), "build the corpus again") if has_report else None
    return CardInfo(name, license, config, report, read_results(results))


def card_writer(info: CardInfo) -> Writer:
    """The part that writes README.md, after those whose scores it tells; a result of other weights raises UserError."""
    return functools.partial(_write_card, info)


def _write_card(
    info: CardInfo, folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> None:
    check_same_weights(folder, info.results)
    (folder / "README.md").write_text(render_card(info, folder, model, tokenizer), encoding="utf-8")


def render_card(
    info: CardInfo, folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> str:
    """The whole card: Hub metadata in YAML, then the sections."""
    sections = [
        f"# {info.name}",
        "A CLIP text encoder that reads Chinese and English, taught from text alone to give the states and features "
        "of its teacher. It takes the place of the teacher's encoder; image tower and UNet stay as they are.",
        _usage_section(info.name),
        results_section(info.results),
        _contents_section(folder, model, tokenizer),
        _recipe_section(info.config),
        _data_section(info.report),
    ]
    return f"---\n{metadata(info).to_yaml()}\n---\n\n" + "\n\n".join(part for part in sections if part) + "\n"


def metadata(info: CardInfo) -> ModelCardData:
    """What the Hub reads: languages, tags, licence, base model and the scores of the student as `model-index`."""
    teacher = str(info.config.get("teacher", ""))
    return ModelCardData(
        language=["zh", "en"],
        license=info.license,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["clip", "text-encoder", "stable-diffusion", "diffusers", "sentence-transformers", "chinese"],
        base_model=teacher if teacher.count("/") == 1 and not Path(teacher).exists() else None,
        model_name=info.name,
        eval_results=model_index(info.results) or None,
    )


def _usage_section(name: str) -> str:
    return f"""## Use

With transformers:

```python
from transformers import AutoTokenizer, CLIPTextModelWithProjection
tokenizer, model = AutoTokenizer.from_pretrained("{name}"), CLIPTextModelWithProjection.from_pretrained("{name}")
features = model(**tokenizer(["戴帽子拿剑的猫"], padding=True, return_tensors="pt")).text_embeds
```

With diffusers, in any pipeline of the teacher's family:

```python
from transformers import AutoTokenizer, CLIPTextModel
pipeline.text_encoder = CLIPTextModel.from_pretrained("{name}", subfolder="text_encoder", torch_dtype=pipeline.dtype)
pipeline.tokenizer = AutoTokenizer.from_pretrained("{name}", subfolder="tokenizer")
pipeline("戴帽子拿剑的猫").images[0]
```

(Not `CLIPTokenizer`: that of transformers 4 stops after CLIP's own merges and would spell Chinese in bytes, that of
transformers 5 breaks English words that touch Chinese, and traditional characters.)

With sentence-transformers: `SentenceTransformer("{name}").encode(["戴帽子拿剑的猫"])`.

For ComfyUI, `single_file/comfyui_node.py` goes into `custom_nodes/`: its node takes rows and tokenizer from here.
`single_file/` has the weights under the key names of CLIP-L loaders as well, but a program with CLIP's own tokenizer
and 49,408 rows cannot read Chinese with them."""


def _contents_section(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> str:
    config = model.config
    weights = sum(weight.numel() for weight in model.parameters())
    lines = [
        "## What is here",
        "",
        f"{weights / 1e6:.1f} M weights: {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.max_position_embeddings} slots, {len(tokenizer):,} tokens, features of {config.projection_dim}.",
        "",
    ]
    descriptions = {
        "model.safetensors": "the encoder with its projection (CLIPTextModelWithProjection)",
        "text_encoder": "the encoder as a Stable Diffusion pipeline takes it, with `tokenizer/`",
        "single_file": "the same weights under the key names of ComfyUI and AUTOMATIC1111",
        "onnx": "ONNX, opset 18, free batch and length: `model.onnx` in float32, `model_int8.onnx`",
        "modules.json": "what makes the folder a sentence-transformers model",
        "golden": "20 prompts with ids, states and features in float32, to check other runtimes against",
    }
    return "\n".join(
        [*lines, *(f"- `{name}`: {said}" for name, said in descriptions.items() if (folder / name).exists())]
    )


def _recipe_section(config: dict[str, Any]) -> str:
    if not config:
        return ""
    recipe: dict[str, Any] = {"teacher": Path(str(config.get("teacher", ""))).name}
    recipe |= {key: config[key] for key in ("student", "losses", "train") if key in config}
    dumped = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False).rstrip()
    return f"## Recipe\n\n```yaml\n{dumped}\n```"


def _data_section(report: CorpusReport | None) -> str:
    if report is None:
        return ""
    summary = f"{report['train_rows']:,} pairs, after the cleaning rejected {report['rows_rejected']:,}."
    heading = ["## Data", "", summary, "", "| source | domain | pairs | licence |", "|---|---|---|---|"]
    sources = report["sources"]
    rows = [f"| {row['name']} | {row['domain']} | {row['train']:,} | {row['license']} |" for row in sources]
    return "\n".join([*heading, *rows])
