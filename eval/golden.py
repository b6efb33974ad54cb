"""`python -m eval.golden STUDENT`: does this installation compute the states and features that the export recorded?

Compared are the ids of every tokenizer that a program may load, states and features in three precisions, and on
request the prompt states of a whole pipeline with the student. It needs data.cli and data.files alone of this
repository, and so runs beside old releases of transformers and diffusers.
"""

import importlib
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from jsonargparse import ArgumentParser
from safetensors.torch import load_file
from torch import Tensor

from data.cli import UserError, one_line, panics_as_errors, run_cli
from data.files import check_writable, write_json

PRECISIONS = {"fp32": (torch.float32, 1e-4), "fp16": (torch.float16, 2e-2), "bf16": (torch.bfloat16, 1.5e-1)}
"""Type, and the largest allowed difference of any state, as a share of the largest recorded one."""
VECTORS = {"states": "last_hidden_state", "encoder": "last_hidden_state", "features": "text_embeds"}
PAIR_VECTORS = {"states": "prompt_embeds", "pooled": "pooled_prompt_embeds"}
"""What is recorded by the names of this report, for one encoder and for SDXL's two."""
ENCODERS = ("text_encoder", "text_encoder_2")


def main(arguments: list[str] | None = None) -> None:
    """Compare and print a table; exit code 1 where a difference exceeds its bound."""
    parser = ArgumentParser(prog="python -m eval.golden", description=__doc__, exit_on_error=False)
    parser.add_argument("student", type=Path, help="folder of an export that has golden/")
    parser.add_argument("--pipeline", type=Path | None, help="pipeline that --pipeline-out of the export wrote")
    parser.add_argument("--out", type=Path | None, help="JSON to write")
    args = parser.parse_args(arguments)
    if args.out is not None:
        check_writable(args.out)
    if args.pipeline is not None and not (args.pipeline / "model_index.json").is_file():
        raise UserError(f"--pipeline {args.pipeline}: no model_index.json; give the folder of --pipeline-out")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # bars would hide the table
    report = check_export(args.student, args.pipeline)
    if args.out is not None:
        write_json(report, args.out)
    print(golden_report(report))
    if not report["holds"]:
        raise SystemExit(1)


def check_export(student: Path, pipeline: Path | None = None) -> dict[str, Any]:
    """Versions, equal ids by tokenizer, largest differences by precision, and whether all of them are in bounds.

    Of a student of one encoder: its states at the root and in `text_encoder/`, and its features. Of SDXL's two: their
    states side by side, and the pooled state of the second.
    """
    pair = (student / "text_encoder_2").is_dir()
    prompts, vectors = load_golden(student)
    recorded = {name: vectors[key] for name, key in (PAIR_VECTORS if pair else VECTORS).items()}
    states = recorded["states"]
    equal_ids = {name: _equal_ids(tokenizer, prompts, vectors) for name, tokenizer in tokenizers(student).items()}
    rows = {}
    for name, (dtype, bound) in PRECISIONS.items():
        computed = (_pair_outputs if pair else outputs)(student, vectors, dtype)
        rows[name] = _compare(computed, recorded, bound * float(states.abs().max()))
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers", "diffusers")}
    result: dict[str, Any] = {
        "versions": versions, "prompts": len(prompts), "equal_ids": equal_ids, "precisions": rows,
    }  # fmt: skip
    holds = all(row["holds"] for row in rows.values()) and min(equal_ids.values()) == len(prompts)
    if pipeline is not None:
        found = pipeline_states(pipeline, prompts, pair)  # the first of what is recorded
        result["pipeline"] = max(map(_max_difference, found, recorded.values()))
        holds = holds and result["pipeline"] <= PRECISIONS["fp32"][1] * float(states.abs().max())
    return {**result, "holds": holds}


def _compare(computed: dict[str, Tensor], recorded: dict[str, Tensor], bound: float) -> dict[str, Any]:
    """Largest differences; the last of `recorded` holds what is compared by its cosine, all others have the bound."""
    row: dict[str, Any] = {name: _max_difference(computed[name], vector) for name, vector in recorded.items()}
    *bounded, last = recorded
    row["cosine"] = float(torch.cosine_similarity(computed[last], recorded[last]).min())
    return {**row, "holds": max(row[name] for name in bounded) <= bound}


def load_golden(student: Path) -> tuple[list[str], dict[str, Tensor]]:
    """The recorded prompts and vectors of an export; UserError where their shapes are not those of its config."""
    folder = student / "golden"
    try:
        prompts: list[str] = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
        "".join(prompts).encode()  # texts without half characters
        vectors: dict[str, Tensor] = load_file(folder / "vectors.safetensors")
    except Exception as error:  # damaged files raise anything
        raise UserError(
            f"{student}: no golden vectors to read ({one_line(error)}); export with --parts golden"
        ) from error
    if not isinstance(prompts, list) or not prompts:
        raise UserError(f"{folder / 'prompts.json'}: no list of prompts; export again with --parts golden")
    mismatch = _vector_problem(vectors, len(prompts), student)
    if mismatch is not None:
        raise UserError(f"{folder / 'vectors.safetensors'}: {mismatch}; export again with --parts golden")
    return prompts, vectors


def _vector_problem(vectors: dict[str, Tensor], prompts: int, student: Path) -> str | None:
    """How the vectors misfit a number of prompts and the models of a student; None where they fit."""
    places = ENCODERS if (student / "text_encoder_2").is_dir() else ("",)
    configs: list[Any] = [_load(transformers.CLIPTextConfig, student / place) for place in places]
    length, width = configs[0].max_position_embeddings, sum(config.hidden_size for config in configs)
    ids = dict(zip(("input_ids", "input_ids_2"), configs, strict=False))
    states, pooled = ("last_hidden_state", "text_embeds") if len(configs) == 1 else PAIR_VECTORS.values()
    expected = {
        **{name: (torch.int64, [prompts, length]) for name in ids},
        states: (torch.float32, [prompts, length, width]),
        pooled: (torch.float32, [prompts, configs[-1].projection_dim]),
    }
    for name, (dtype, shape) in expected.items():
        if name not in vectors:
            return f"no {name}"
        vector = vectors[name]
        if (vector.dtype, list(vector.shape)) != (dtype, shape):
            return f"{name} is {list(vector.shape)} of {vector.dtype}, not {shape} of {dtype}"
    for name, config in ids.items():
        low, high = int(vectors[name].min()), int(vectors[name].max())
        if low < 0 or high >= config.vocab_size:
            return f"{name} from {low} to {high}, where the model has {config.vocab_size} rows"
    return None


def tokenizers(student: Path) -> dict[str, Any]:
    """The tokenizer as a program may load it, except as CLIPTokenizer; those of a second encoder end with `_2/`.

    CLIPTokenizer of transformers 4 stops after CLIP's own 48,894 merges, that of transformers 5 does not separate
    Chinese from other letters.
    """
    folders = ["tokenizer_2", "tokenizer"] if (student / "text_encoder_2").is_dir() else ["", "tokenizer"]
    kinds = [("AutoTokenizer", folder) for folder in folders]
    kinds += [("PreTrainedTokenizerFast", folder) for folder in reversed(folders) if folder]
    return {
        f"{kind}, {folder}/" if folder else kind: _load(getattr(transformers, kind), student / folder)
        for kind, folder in kinds
    }


@torch.no_grad()
def outputs(student: Path, vectors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """States and features of the model at the root, and states of `text_encoder/`, computed in `dtype`."""
    ids = vectors["input_ids"]
    model = _load(transformers.CLIPTextModelWithProjection, student, use_safetensors=True).to(dtype).eval()
    text_encoder = _load(transformers.CLIPTextModel, student / "text_encoder", use_safetensors=True).to(dtype).eval()
    try:
        model_outputs, encoder = model(input_ids=ids), text_encoder(input_ids=ids).last_hidden_state
    except Exception as error:  # a config that loads may still be of a model that cannot be computed
        problem = f"its model or text_encoder/ cannot run ({one_line(error)})"
        raise UserError(f"{student}: {problem}; export it again") from error
    computed = {"states": model_outputs.last_hidden_state, "encoder": encoder, "features": model_outputs.text_embeds}
    return {name: tensor.float() for name, tensor in computed.items()}


@torch.no_grad()
def _pair_outputs(student: Path, vectors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What SDXL's UNet reads: the states before the last layers, and the second encoder's projected pooled state."""
    kinds: list[Any] = [transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection]
    found = [
        _load(kind, student / name, use_safetensors=True).to(dtype).eval()(input_ids=ids, output_hidden_states=True)
        for kind, name, ids in zip(kinds, ENCODERS, (vectors["input_ids"], vectors["input_ids_2"]), strict=True)
    ]
    states = torch.cat([each.hidden_states[-2] for each in found], dim=2)
    return {"states": states.float(), "pooled": found[1].text_embeds.float()}


@torch.no_grad()
def pipeline_states(folder: Path, prompts: list[str], pair: bool = False) -> list[Tensor]:
    """Prompt states [prompts, length, width] as diffusers computes them; of SDXL also pooled states [prompts, dim]."""
    diffusers: Any = importlib.import_module("diffusers")
    diffusers.utils.logging.set_verbosity_error()  # it would print the cut end of the long prompt
    diffusers.utils.logging.disable_progress_bar()
    if pair:
        pipeline = _load(diffusers.StableDiffusionXLPipeline, folder, use_safetensors=True, add_watermarker=False)
        found = pipeline.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
        return [found[0].float(), found[2].float()]
    settings = {"safety_checker": None, "requires_safety_checker": False, "use_safetensors": True}
    pipeline = _load(diffusers.StableDiffusionPipeline, folder, **settings)
    return [pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)[0].float()]


def _load(kind: Any, folder: Path, **settings: object) -> Any:  # noqa: ANN401  any class with from_pretrained
    try:
        with panics_as_errors():
            return kind.from_pretrained(folder, **settings)
    except Exception as error:  # damaged files raise anything
        raise UserError(f"{folder}: cannot be loaded ({one_line(error)}); export it again") from error


def golden_report(report: dict[str, Any]) -> str:
    """The comparison as a table for the terminal."""
    lines = [", ".join(f"{name} {version}" for name, version in report["versions"].items())]
    lines += [f"{name:38}{count} of {report['prompts']} prompts equal" for name, count in report["equal_ids"].items()]
    measures = [key for key in next(iter(report["precisions"].values())) if key not in ("cosine", "holds")]
    lines.append(f"{'':8}" + "".join(f"{key:>12}" for key in (*measures, "cosine")))
    for name, row in report["precisions"].items():
        found = "".join(f"{row[key]:12.2e}" for key in measures)
        lines.append(f"{name:8}{found}{row['cosine']:12.7f}{'' if row['holds'] else '  too far'}")
    if "pipeline" in report:
        lines.append(f"pipeline{report['pipeline']:12.2e}")
    return "\n".join([*lines, "holds" if report["holds"] else "DOES NOT HOLD"])


def _equal_ids(tokenizer: Any, prompts: list[str], vectors: dict[str, Tensor]) -> int:  # noqa: ANN401  any tokenizer
    """How many prompts have the recorded ids, those of a second encoder for its tokenizer."""
    ids = vectors["input_ids_2" if str(tokenizer.name_or_path).endswith("tokenizer_2") else "input_ids"]
    encoding = tokenizer(prompts, padding="max_length", truncation=True, max_length=ids.shape[1], return_tensors="pt")
    return int((encoding.input_ids == ids).all(dim=1).sum())


def _max_difference(computed: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference; infinity for different shapes."""
    return float((computed - recorded).abs().max()) if computed.shape == recorded.shape else math.inf


if __name__ == "__main__":
    run_cli(main)
