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

from data.files import read_json, shaped
from distill.export.folder import Part
from distill.export.results import Scored, model_index, read_results, refuse_others, section


class Source(TypedDict):
    """One of a corpus's, with its training pairs."""

    name: str
    domain: str
    license: str
    train: int


class Report(TypedDict):
    """What the card relies on in a corpus's report.json."""

    train_rows: int
    rows_rejected: int
    sources: list[Source]


@dataclass(frozen=True)
class Origin:
    """What the card tells besides the model: the run's config, the corpus's report, results; the first may be {}."""

    name: str
    license: str
    config: dict[str, Any]
    report: Report | None
    results: tuple[Scored, ...]


def read_origin(name: str, license: str, run: Path, results: Sequence[Path]) -> Origin:
    """Read the config of `run`, the report of its corpus, and the result files of the benchmarks."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    corpus = config.get("data", {}).get("corpus")
    path = Path(corpus or "") / "report.json"
    built = corpus and path.is_file()
    report = shaped(read_json(path), Report, str(path), "build the corpus again") if built else None
    return Origin(name, license, config, report, read_results(results))


def card(origin: Origin) -> Part:
    """The part that writes README.md, after those whose scores it tells; a result of other weights raises UserError."""
    return functools.partial(_write, origin)


def _write(
    origin: Origin, folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> None:
    refuse_others(folder, origin.results)
    (folder / "README.md").write_text(text(origin, folder, model, tokenizer), encoding="utf-8")


def text(origin: Origin, folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> str:
    """The whole card: Hub metadata in YAML, then the sections."""
    sections = [
        f"# {origin.name}",
        "A CLIP text encoder that reads Chinese and English, taught from text alone to give the states and features "
        "of its teacher. It takes the place of the teacher's encoder; image tower and UNet stay as they are.",
        _use(origin.name),
        section(origin.results),
        _shape(folder, model, tokenizer),
        _recipe(origin.config),
        _data(origin.report),
    ]
    return f"---\n{metadata(origin).to_yaml()}\n---\n\n" + "\n\n".join(part for part in sections if part) + "\n"


def metadata(origin: Origin) -> ModelCardData:
    """What the Hub reads: languages, tags, licence, base model and the scores of the student as `model-index`."""
    teacher = str(origin.config.get("teacher", ""))
    return ModelCardData(
        language=["zh", "en"],
        license=origin.license,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["clip", "text-encoder", "stable-diffusion", "diffusers", "sentence-transformers", "chinese"],
        base_model=teacher if teacher.count("/") == 1 and not Path(teacher).exists() else None,
        model_name=origin.name,
        eval_results=model_index(origin.results) or None,
    )


def _use(name: str) -> str:
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


def _shape(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> str:
    config = model.config
    weights = sum(weight.numel() for weight in model.parameters())
    lines = [
        "## What is here",
        "",
        f"{weights / 1e6:.1f} M weights: {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.max_position_embeddings} slots, {len(tokenizer):,} tokens, features of {config.projection_dim}.",
        "",
    ]
    known = {
        "model.safetensors": "the encoder with its projection (CLIPTextModelWithProjection)",
        "text_encoder": "the encoder as a Stable Diffusion pipeline takes it, with `tokenizer/`",
        "single_file": "the same weights under the key names of ComfyUI and AUTOMATIC1111",
        "onnx": "ONNX, opset 18, free batch and length: `model.onnx` in float32, `model_int8.onnx`",
        "modules.json": "what makes the folder a sentence-transformers model",
        "golden": "20 prompts with ids, states and features in float32, to check other runtimes against",
    }
    return "\n".join([*lines, *(f"- `{name}`: {said}" for name, said in known.items() if (folder / name).exists())])


def _recipe(config: dict[str, Any]) -> str:
    if not config:
        return ""
    shown: dict[str, Any] = {"teacher": Path(str(config.get("teacher", ""))).name}
    shown |= {key: config[key] for key in ("student", "losses", "train") if key in config}
    dumped = yaml.safe_dump(shown, allow_unicode=True, sort_keys=False).rstrip()
    return f"## Recipe\n\n```yaml\n{dumped}\n```"


def _data(report: Report | None) -> str:
    if report is None:
        return ""
    told = f"{report['train_rows']:,} pairs, after the cleaning rejected {report['rows_rejected']:,}."
    heading = ["## Data", "", told, "", "| source | domain | pairs | licence |", "|---|---|---|---|"]
    sources = report["sources"]
    rows = [f"| {row['name']} | {row['domain']} | {row['train']:,} | {row['license']} |" for row in sources]
    return "\n".join([*heading, *rows])
