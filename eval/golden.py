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

from data.cli import UserError, command, one_line, panics_as_errors
from data.files import refuse_unwritable, write_json

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
    given = parser.parse_args(arguments)
    if given.out is not None:
        refuse_unwritable(given.out)
    if given.pipeline is not None and not (given.pipeline / "model_index.json").is_file():
        raise UserError(f"--pipeline {given.pipeline}: no model_index.json; give the folder of --pipeline-out")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # bars would hide what matters
    found = compared(given.student, given.pipeline)
    if given.out is not None:
        write_json(found, given.out)
    print(table(found))
    if not found["holds"]:
        raise SystemExit(1)


def compared(student: Path, pipeline: Path | None = None) -> dict[str, Any]:
    """Versions, equal ids by tokenizer, the largest differences by precision, and whether all of them hold."""
    prompts, vectors = golden(student)
    ids, states, features = (vectors[name] for name in ("input_ids", "last_hidden_state", "text_embeds"))
    equal = {name: _equal_ids(loaded, prompts, ids) for name, loaded in tokenizers(student).items()}
    rows = {}
    for name, (dtype, bound) in PRECISIONS.items():
        found = outputs(student, ids, dtype)
        told = {
            "states": _farthest(found["states"], states),
            "encoder": _farthest(found["encoder"], states),
            "features": _farthest(found["features"], features),
            "cosine": float(torch.cosine_similarity(found["features"], features).min()),
        }
        rows[name] = {**told, "holds": max(told["states"], told["encoder"]) <= bound * float(states.abs().max())}
    result: dict[str, Any] = {"versions": versions(), "prompts": len(prompts), "equal_ids": equal, "precisions": rows}
    holds = all(row["holds"] for row in rows.values()) and min(equal.values()) == len(prompts)
    if pipeline is not None:
        far = _farthest(pipeline_states(pipeline, prompts), states)
        result["pipeline"] = far
        holds = holds and far <= PRECISIONS["fp32"][1] * float(states.abs().max())
    return {**result, "holds": holds}


def golden(student: Path) -> tuple[list[str], dict[str, Tensor]]:
    """The recorded prompts and vectors of an export, if they are of a model of its config."""
    folder = student / "golden"
    try:
        prompts: list[str] = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
        "".join(prompts).encode()  # they are texts, and of whole signs
        vectors: dict[str, Tensor] = load_file(folder / "vectors.safetensors")
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        said = f"no golden vectors to read ({one_line(error)})"
        raise UserError(f"{student}: {said}; export with --parts golden") from error
    if not isinstance(prompts, list) or not prompts:
        raise UserError(f"{folder / 'prompts.json'}: no list of prompts; export again with --parts golden")
    kinds: Any = transformers
    wrong = _misfit(vectors, len(prompts), _loaded(kinds.CLIPTextConfig, student))
    if wrong is not None:
        raise UserError(f"{folder / 'vectors.safetensors'}: {wrong}; export again with --parts golden")
    return prompts, vectors


def _misfit(vectors: dict[str, Tensor], prompts: int, config: Any) -> str | None:  # noqa: ANN401  of any release
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
        found = vectors[name]
        if (found.dtype, list(found.shape)) != (dtype, shape):
            return f"{name} is {list(found.shape)} of {found.dtype}, not {shape} of {dtype}"
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
        "AutoTokenizer": _loaded(kinds.AutoTokenizer, student),
        "AutoTokenizer, tokenizer/": _loaded(kinds.AutoTokenizer, student / "tokenizer"),
        "PreTrainedTokenizerFast, tokenizer/": _loaded(kinds.PreTrainedTokenizerFast, student / "tokenizer"),
    }


@torch.no_grad()
def outputs(student: Path, ids: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """States and features of the root's model, and states of `text_encoder/`, computed in `dtype`."""
    kinds: Any = transformers
    whole = _loaded(kinds.CLIPTextModelWithProjection, student, use_safetensors=True).to(dtype).eval()
    inside = _loaded(kinds.CLIPTextModel, student / "text_encoder", use_safetensors=True).to(dtype).eval()
    try:
        found, encoder = whole(input_ids=ids), inside(input_ids=ids).last_hidden_state
    except Exception as error:  # a config that loads may still ask for what cannot be computed
        said = one_line(error)
        raise UserError(f"{student}: its model or text_encoder/ cannot run ({said}); export it again") from error
    return {
        "states": found.last_hidden_state.float(),
        "features": found.text_embeds.float(),
        "encoder": encoder.float(),
    }


@torch.no_grad()
def pipeline_states(folder: Path, prompts: list[str]) -> Tensor:
    """[prompts, slots, width]: what diffusers itself makes of the prompts."""
    diffusers: Any = importlib.import_module("diffusers")
    diffusers.utils.logging.set_verbosity_error()  # else it prints what it cuts of the long prompt
    diffusers.utils.logging.disable_progress_bar()
    pipeline = _loaded(
        diffusers.StableDiffusionPipeline, folder,
        safety_checker=None, requires_safety_checker=False, use_safetensors=True,
    )  # fmt: skip
    found: Tensor = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)[0]
    return found.float()


def _loaded(kind: Any, folder: Path, **settings: object) -> Any:  # noqa: ANN401  whichever class is asked for
    try:
        with panics_as_errors():
            return kind.from_pretrained(folder, **settings)
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        raise UserError(f"{folder}: cannot be loaded ({one_line(error)}); export it again") from error


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    names = ("torch", "transformers", "tokenizers", "diffusers")
    return {name: importlib.metadata.version(name) for name in names}


def table(found: dict[str, Any]) -> str:
    """The comparison for the terminal."""
    lines = [", ".join(f"{name} {version}" for name, version in found["versions"].items())]
    lines += [f"{name:36}{count} of {found['prompts']} prompts equal" for name, count in found["equal_ids"].items()]
    lines.append(f"{'':8}{'states':>12}{'encoder':>12}{'features':>12}{'cosine':>12}")
    for name, row in found["precisions"].items():
        three = "".join(f"{row[key]:12.2e}" for key in ("states", "encoder", "features"))
        lines.append(f"{name:8}{three}{row['cosine']:12.7f}{'' if row['holds'] else '  too far'}")
    if "pipeline" in found:
        lines.append(f"pipeline{found['pipeline']:12.2e}")
    return "\n".join([*lines, "holds" if found["holds"] else "DOES NOT HOLD"])


def _equal_ids(tokenizer: Any, prompts: list[str], ids: Tensor) -> int:  # noqa: ANN401  any tokenizer
    made = tokenizer(prompts, padding="max_length", truncation=True, max_length=ids.shape[1], return_tensors="pt")
    return int((made.input_ids == ids).all(dim=1).sum())


def _farthest(found: Tensor, recorded: Tensor) -> float:
    """Infinity where they are not of one shape."""
    return float((found - recorded).abs().max()) if found.shape == recorded.shape else math.inf


if __name__ == "__main__":
    command(main)
