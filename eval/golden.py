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
    """Versions, equal ids by tokenizer, largest differences by precision, and whether all of them are in bounds."""
    prompts, vectors = load_golden(student)
    ids, states = vectors["input_ids"], vectors["last_hidden_state"]
    equal_ids = {name: _equal_ids(tokenizer, prompts, ids) for name, tokenizer in tokenizers(student).items()}
    rows = {name: _compare_precision(student, vectors, dtype, bound) for name, (dtype, bound) in PRECISIONS.items()}
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers", "diffusers")}
    result: dict[str, Any] = {
        "versions": versions, "prompts": len(prompts), "equal_ids": equal_ids, "precisions": rows,
    }  # fmt: skip
    holds = all(row["holds"] for row in rows.values()) and min(equal_ids.values()) == len(prompts)
    if pipeline is not None:
        pipeline_difference = _max_difference(pipeline_states(pipeline, prompts), states)
        result["pipeline"] = pipeline_difference
        holds = holds and pipeline_difference <= PRECISIONS["fp32"][1] * float(states.abs().max())
    return {**result, "holds": holds}


def _compare_precision(student: Path, vectors: dict[str, Tensor], dtype: torch.dtype, bound: float) -> dict[str, Any]:
    states, features = vectors["last_hidden_state"], vectors["text_embeds"]
    recorded = {"states": states, "encoder": states, "features": features}
    computed = outputs(student, vectors["input_ids"], dtype)
    row = {name: _max_difference(computed[name], vector) for name, vector in recorded.items()}
    row["cosine"] = float(torch.cosine_similarity(computed["features"], features).min())
    return {**row, "holds": max(row["states"], row["encoder"]) <= bound * float(states.abs().max())}


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
    mismatch = _vector_problem(vectors, len(prompts), _load(transformers.CLIPTextConfig, student))
    if mismatch is not None:
        raise UserError(f"{folder / 'vectors.safetensors'}: {mismatch}; export again with --parts golden")
    return prompts, vectors


def _vector_problem(vectors: dict[str, Tensor], prompts: int, config: Any) -> str | None:  # noqa: ANN401  of any release
    """How the vectors misfit a number of prompts and a model of `config`; None where they fit."""
    length = config.max_position_embeddings
    expected = {
        "input_ids": (torch.int64, [prompts, length]),
        "last_hidden_state": (torch.float32, [prompts, length, config.hidden_size]),
        "text_embeds": (torch.float32, [prompts, config.projection_dim]),
    }
    for name, (dtype, shape) in expected.items():
        if name not in vectors:
            return f"no {name}"
        vector = vectors[name]
        if (vector.dtype, list(vector.shape)) != (dtype, shape):
            return f"{name} is {list(vector.shape)} of {vector.dtype}, not {shape} of {dtype}"
    ids = vectors["input_ids"]
    if ids.min() < 0 or ids.max() >= config.vocab_size:
        return f"input_ids from {int(ids.min())} to {int(ids.max())}, where the model has {config.vocab_size} rows"
    return None


def tokenizers(student: Path) -> dict[str, Any]:
    """The tokenizer as a program may load it, except as CLIPTokenizer.

    CLIPTokenizer of transformers 4 stops after CLIP's own 48,894 merges, that of transformers 5 does not separate
    Chinese from other letters.
    """
    return {
        "AutoTokenizer": _load(transformers.AutoTokenizer, student),
        "AutoTokenizer, tokenizer/": _load(transformers.AutoTokenizer, student / "tokenizer"),
        "PreTrainedTokenizerFast, tokenizer/": _load(transformers.PreTrainedTokenizerFast, student / "tokenizer"),
    }


@torch.no_grad()
def outputs(student: Path, ids: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """States and features of the model at the root, and states of `text_encoder/`, computed in `dtype`."""
    model = _load(transformers.CLIPTextModelWithProjection, student, use_safetensors=True).to(dtype).eval()
    text_encoder = _load(transformers.CLIPTextModel, student / "text_encoder", use_safetensors=True).to(dtype).eval()
    try:
        model_outputs, encoder = model(input_ids=ids), text_encoder(input_ids=ids).last_hidden_state
    except Exception as error:  # a config that loads may still be of a model that cannot be computed
        problem = f"its model or text_encoder/ cannot run ({one_line(error)})"
        raise UserError(f"{student}: {problem}; export it again") from error
    computed = {"states": model_outputs.last_hidden_state, "features": model_outputs.text_embeds, "encoder": encoder}
    return {name: tensor.float() for name, tensor in computed.items()}


@torch.no_grad()
def pipeline_states(folder: Path, prompts: list[str]) -> Tensor:
    """Prompt states [prompts, length, hidden_size] as diffusers computes them."""
    diffusers: Any = importlib.import_module("diffusers")
    diffusers.utils.logging.set_verbosity_error()  # it would print the cut end of the long prompt
    diffusers.utils.logging.disable_progress_bar()
    settings = {"safety_checker": None, "requires_safety_checker": False, "use_safetensors": True}
    pipeline = _load(diffusers.StableDiffusionPipeline, folder, **settings)
    states: Tensor = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)[0]
    return states.float()


def _load(kind: Any, folder: Path, **settings: object) -> Any:  # noqa: ANN401  any class with from_pretrained
    try:
        with panics_as_errors():
            return kind.from_pretrained(folder, **settings)
    except Exception as error:  # damaged files raise anything
        raise UserError(f"{folder}: cannot be loaded ({one_line(error)}); export it again") from error


def golden_report(report: dict[str, Any]) -> str:
    """The comparison as a table for the terminal."""
    lines = [", ".join(f"{name} {version}" for name, version in report["versions"].items())]
    lines += [f"{name:36}{count} of {report['prompts']} prompts equal" for name, count in report["equal_ids"].items()]
    lines.append(f"{'':8}{'states':>12}{'encoder':>12}{'features':>12}{'cosine':>12}")
    for name, row in report["precisions"].items():
        three = "".join(f"{row[key]:12.2e}" for key in ("states", "encoder", "features"))
        lines.append(f"{name:8}{three}{row['cosine']:12.7f}{'' if row['holds'] else '  too far'}")
    if "pipeline" in report:
        lines.append(f"pipeline{report['pipeline']:12.2e}")
    return "\n".join([*lines, "holds" if report["holds"] else "DOES NOT HOLD"])


def _equal_ids(tokenizer: Any, prompts: list[str], ids: Tensor) -> int:  # noqa: ANN401  any tokenizer
    encoding = tokenizer(prompts, padding="max_length", truncation=True, max_length=ids.shape[1], return_tensors="pt")
    return int((encoding.input_ids == ids).all(dim=1).sum())


def _max_difference(computed: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference; infinity for different shapes."""
    return float((computed - recorded).abs().max()) if computed.shape == recorded.shape else math.inf


if __name__ == "__main__":
    run_cli(main)
