"""`python -m eval.golden STUDENT`: does this installation give the states and features that the export recorded?

Needs of this repository nothing but itself, so that it runs beside any release of transformers and diffusers: ids by
every tokenizer that a program may load, states and features in three precisions, and on request the prompt states of a
whole pipeline that holds the student.
"""

import importlib
import importlib.metadata
import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from jsonargparse import ArgumentParser
from safetensors.torch import load_file
from torch import Tensor

from data.cli import UserError, one_line, panics_as_errors, run_cli
from data.files import check_writable, write_json

PRECISIONS = {
    "fp32": (torch.float32, 1e-4),
    "fp16": (torch.float16, 2e-2),
    "bf16": (torch.bfloat16, 1.5e-1),
}
"""Type, and the largest difference of any state, in shares of the largest recorded one."""


def main(arguments: list[str] | None = None) -> None:
    """Compare, print a table and, where anything is further than its bound, exit with code 1."""
    parser = ArgumentParser(prog="python -m eval.golden", description=__doc__, exit_on_error=False)
    parser.add_argument("student", type=Path, help="folder of an export that has golden/")
    parser.add_argument("--pipeline", type=Path | None, help="pipeline that --pipeline-out of the export wrote")
    parser.add_argument("--out", type=Path | None, help="JSON to write")
    args = parser.parse_args(arguments)
    if args.out is not None:
        check_writable(args.out)
    if args.pipeline is not None and not (args.pipeline / "model_index.json").is_file():
        raise UserError(f"--pipeline {args.pipeline}: no model_index.json; give the folder of --pipeline-out")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # bars would hide what matters
    report = check_export(args.student, args.pipeline)
    if args.out is not None:
        write_json(report, args.out)
    print(golden_report(report))
    if not report["holds"]:
        raise SystemExit(1)


def check_export(student: Path, pipeline: Path | None = None) -> dict[str, Any]:
    """Versions, equal ids by tokenizer, the largest differences by precision, and whether all of them hold."""
    prompts, vectors = load_golden(student)
    ids, states, features = (vectors[name] for name in ("input_ids", "last_hidden_state", "text_embeds"))
    equal = {name: _equal_ids(loaded, prompts, ids) for name, loaded in tokenizers(student).items()}
    rows = {}
    for name, (dtype, bound) in PRECISIONS.items():
        loaded_outputs = outputs(student, ids, dtype)
        differences = {
            "states": _max_difference(loaded_outputs["states"], states),
            "encoder": _max_difference(loaded_outputs["encoder"], states),
            "features": _max_difference(loaded_outputs["features"], features),
            "cosine": float(torch.cosine_similarity(loaded_outputs["features"], features).min()),
        }
        rows[name] = {
            **differences,
            "holds": max(differences["states"], differences["encoder"]) <= bound * float(states.abs().max()),
        }
    result: dict[str, Any] = {
        "versions": library_versions(),
        "prompts": len(prompts),
        "equal_ids": equal,
        "precisions": rows,
    }
    holds = all(row["holds"] for row in rows.values()) and min(equal.values()) == len(prompts)
    if pipeline is not None:
        pipeline_difference = _max_difference(pipeline_states(pipeline, prompts), states)
        result["pipeline"] = pipeline_difference
        holds = holds and pipeline_difference <= PRECISIONS["fp32"][1] * float(states.abs().max())
    return {**result, "holds": holds}


def load_golden(student: Path) -> tuple[list[str], dict[str, Tensor]]:
    """The recorded prompts and vectors of an export, if they are of a model of its config."""
    folder = student / "golden"
    try:
        prompts: list[str] = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
        "".join(prompts).encode()  # they are texts, and of whole signs
        vectors: dict[str, Tensor] = load_file(folder / "vectors.safetensors")
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        problem = f"no golden vectors to read ({one_line(error)})"
        raise UserError(f"{student}: {problem}; export with --parts golden") from error
    if not isinstance(prompts, list) or not prompts:
        raise UserError(f"{folder / 'prompts.json'}: no list of prompts; export again with --parts golden")
    kinds: Any = transformers
    wrong = _vector_problem(vectors, len(prompts), _load(kinds.CLIPTextConfig, student))
    if wrong is not None:
        raise UserError(f"{folder / 'vectors.safetensors'}: {wrong}; export again with --parts golden")
    return prompts, vectors


def _vector_problem(vectors: dict[str, Tensor], prompts: int, config: Any) -> str | None:  # noqa: ANN401  of any release
    """What is wrong with the recorded vectors of so many prompts, for a model of `config`."""
    slots = config.max_position_embeddings
    recorded = {
        "input_ids": (torch.int64, [prompts, slots]),
        "last_hidden_state": (torch.float32, [prompts, slots, config.hidden_size]),
        "text_embeds": (torch.float32, [prompts, config.projection_dim]),
    }
    for name, (dtype, shape) in recorded.items():
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
    """Every way in which a program may load the tokenizer, but for CLIP's own.

    That of transformers 4 reads vocab.json and merges.txt in Python and stops after CLIP's own 48,894 merges, that of
    transformers 5 does not cut Chinese from other letters.
    """
    kinds: Any = transformers
    return {
        "AutoTokenizer": _load(kinds.AutoTokenizer, student),
        "AutoTokenizer, tokenizer/": _load(kinds.AutoTokenizer, student / "tokenizer"),
        "PreTrainedTokenizerFast, tokenizer/": _load(kinds.PreTrainedTokenizerFast, student / "tokenizer"),
    }


@torch.no_grad()
def outputs(student: Path, ids: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """States and features of the root's model, and states of `text_encoder/`, computed in `dtype`."""
    kinds: Any = transformers
    model = _load(kinds.CLIPTextModelWithProjection, student, use_safetensors=True).to(dtype).eval()
    text_encoder = _load(kinds.CLIPTextModel, student / "text_encoder", use_safetensors=True).to(dtype).eval()
    try:
        model_outputs, encoder = model(input_ids=ids), text_encoder(input_ids=ids).last_hidden_state
    except Exception as error:  # a config that loads may still ask for what cannot be computed
        said = one_line(error)
        raise UserError(f"{student}: its model or text_encoder/ cannot run ({said}); export it again") from error
    return {
        "states": model_outputs.last_hidden_state.float(),
        "features": model_outputs.text_embeds.float(),
        "encoder": encoder.float(),
    }


@torch.no_grad()
def pipeline_states(folder: Path, prompts: list[str]) -> Tensor:
    """[prompts, slots, width]: what diffusers itself makes of the prompts."""
    diffusers: Any = importlib.import_module("diffusers")
    diffusers.utils.logging.set_verbosity_error()  # else it prints what it cuts of the long prompt
    diffusers.utils.logging.disable_progress_bar()
    pipeline = _load(
        diffusers.StableDiffusionPipeline, folder,
        safety_checker=None, requires_safety_checker=False, use_safetensors=True,
    )  # fmt: skip
    found: Tensor = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)[0]
    return found.float()


def _load(kind: Any, folder: Path, **settings: object) -> Any:  # noqa: ANN401  whichever class is asked for
    try:
        with panics_as_errors():
            return kind.from_pretrained(folder, **settings)
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        raise UserError(f"{folder}: cannot be loaded ({one_line(error)}); export it again") from error


def library_versions() -> dict[str, str]:
    """Of what decides the numbers."""
    names = ("torch", "transformers", "tokenizers", "diffusers")
    return {name: importlib.metadata.version(name) for name in names}


def golden_report(report: dict[str, Any]) -> str:
    """The comparison for the terminal."""
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
    """Infinity where they are not of one shape."""
    return float((computed - recorded).abs().max()) if computed.shape == recorded.shape else math.inf


if __name__ == "__main__":
    run_cli(main)
