"""`python -m eval.pairs`: cosine between the student's Chinese and the teacher's English on held-out pairs of a corpus.

Of the projected features by domain and by length, of the states by position, and the 50 worst pairs. A low cosine
means a poor student or a pair that is no translation; reading the pair tells which.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from tqdm import tqdm

from data.cli import UserError, command_line, commit, one_line, run_cli, versions
from data.files import check_writable, hashes, write_json
from distill.api import TextEncoder, load_student
from distill.loading import resolve_device, torch_dtype
from eval.retrieval.command import add_device_options
from eval.retrieval.models import model_files

LENGTH_BOUNDS = (8, 16, 32, 64, 77)
"""Upper bounds of the length bands, in the teacher's English tokens."""
NUM_WORST = 50
_SCHEMA = pa.schema([(name, pa.string()) for name in ("en", "zh", "domain")])


@dataclass(frozen=True)
class Pairs:
    """Columns of a corpus; a row is a pair."""

    en: list[str]
    zh: list[str]
    domain: list[str]

    def sentences(self, language: str) -> list[str]:
        """The sentences of `language`."""
        return self.zh if language == "zh" else self.en


def load_held_out(corpus: Path, rows: int) -> dict[str, Pairs]:
    """The first `rows` pairs of every domain in CORPUS/valid, by the domain's name."""
    shards = sorted((corpus / "valid").glob("*.parquet"))
    if not shards:
        raise UserError(f"{corpus}: no valid/*.parquet there; build one with python -m data.build")
    table = pa.concat_tables(map(_read_shard, shards))
    domains = {}
    for domain in sorted(pa.compute.unique(table["domain"]).to_pylist()):
        columns = table.filter(pa.compute.equal(table["domain"], domain)).slice(0, rows).to_pydict()
        domains[domain] = Pairs(columns["en"], columns["zh"], columns["domain"])
    return domains


def _read_shard(path: Path) -> pa.Table:
    """en, zh and domain of a shard; UserError where one of them is missing, not text, or holds nulls."""
    try:
        table = pa.parquet.read_table(path, columns=_SCHEMA.names)
        table.validate(full=True)  # Parquet does not promise UTF-8
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable ({one_line(error)}); build the corpus again") from error
    for name in _SCHEMA.names:
        column = table[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or column.null_count:
            kind = f"{column.type} with {column.null_count} nulls"
            raise UserError(f"{path}: column {name!r} is {kind}, not text in every row; build the corpus again")
    return table.cast(_SCHEMA)


def concat_pairs(domains: dict[str, Pairs]) -> Pairs:
    """The pairs of all domains, one after the other."""
    groups = domains.values()
    return Pairs(
        [text for pairs in groups for text in pairs.en],
        [text for pairs in groups for text in pairs.zh],
        [name for pairs in groups for name in pairs.domain],
    )


def compare_pairs(student: TextEncoder, teacher: TextEncoder, pairs: Pairs) -> dict[str, Any]:
    """The comparison as JSON values."""
    target = teacher.encode(pairs.en)
    cosines = {
        "zh": (student.encode(pairs.zh) * target).sum(axis=1),
        "en": (student.encode(pairs.en) * target).sum(axis=1),
    }
    domains = np.array(pairs.domain)
    lengths = np.array([len(ids) for ids in teacher.tokenizer(pairs.en, verbose=False).input_ids])
    lengths = np.minimum(lengths, LENGTH_BOUNDS[-1])
    bands = zip((0, *LENGTH_BOUNDS), LENGTH_BOUNDS, strict=False)
    worst = np.argsort(cosines["zh"], kind="stable")[:NUM_WORST].tolist()
    return {
        "kind": "pairs",
        "pairs": len(pairs.en),
        "by_domain": _group_means(cosines, ((str(domain), domains == domain) for domain in np.unique(domains))),
        "by_length": _group_means(
            cosines, ((f"{low + 1} to {high}", (lengths > low) & (lengths <= high)) for low, high in bands)
        ),
        "by_slot": cosine_by_position(student, teacher, pairs),
        "worst": [
            {
                "cosine": round(float(cosines["zh"][row]), 4),
                "domain": pairs.domain[row],
                "zh": pairs.zh[row],
                "en": pairs.en[row],
            }
            for row in worst
        ],
    }


def _group_means(
    cosines: dict[str, NDArray[np.float32]], groups: Iterable[tuple[str, NDArray[np.bool_]]]
) -> dict[str, dict[str, float]]:
    """Number of pairs and mean cosines of each (name, mask [pairs]); empty groups are left out."""
    return {
        name: {"pairs": int(mask.sum())}
        | {language: round(float(values[mask].mean()), 4) for language, values in cosines.items()}
        for name, mask in groups
        if mask.any()
    }


def cosine_by_position(
    student: TextEncoder, teacher: TextEncoder, pairs: Pairs, max_pairs: int = 256
) -> dict[str, list[float]]:
    """Mean cosine with the teacher's English states at each position, padding included.

    Of the student's Chinese, its English, and its empty prompt; over `max_pairs` pairs spread over all.
    """
    rows = np.unique(np.linspace(0, len(pairs.en) - 1, min(max_pairs, len(pairs.en))).astype(int)).tolist()
    cosines: dict[str, list[torch.Tensor]] = {"zh": [], "en": []}
    for start in tqdm(range(0, len(rows), 32), desc="states", unit="batch", leave=False, disable=None):
        batch = rows[start : start + 32]
        target = teacher.states([pairs.en[row] for row in batch]).float()
        for language in ("zh", "en"):
            states = student.states([pairs.sentences(language)[row] for row in batch]).float()
            cosines[language].append(F.cosine_similarity(states, target, dim=-1))
    means = {language: torch.cat(batches).mean(dim=0) for language, batches in cosines.items()}
    means["empty prompt"] = F.cosine_similarity(student.states([""]).float(), teacher.states([""]).float(), dim=-1)[0]
    return {name: [round(float(cosine), 4) for cosine in values] for name, values in means.items()}


def main(arguments: list[str] | None = None) -> None:
    """Compare, write the JSON, and print the means of each domain."""
    parser = ArgumentParser(prog="python -m eval.pairs", description="Cosines on held-out pairs.", exit_on_error=False)
    parser.add_argument("--student", type=str, required=True, help="folder or Hub id of the student, as exported")
    parser.add_argument("--clip", type=str, required=True, help="folder or Hub id of the teacher")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that python -m data.build wrote")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--per-domain", type=int, default=500, help="pairs of each domain")
    add_device_options(parser)
    args = parser.parse_args(arguments)
    if args.per_domain < 1:
        raise UserError("--per-domain must be at least 1")
    check_writable(args.out)
    pairs = concat_pairs(load_held_out(args.corpus, args.per_domain))
    device = resolve_device(args.device)
    student, teacher = (
        load_student(source, device, key) for source, key in ((args.student, "--student"), (args.clip, "--clip"))
    )
    for model in (student.model, teacher.model):
        torch.nn.Module.to(model, torch_dtype(args.precision))
    if student.feature_dim != teacher.feature_dim:
        raise UserError(f"--student {args.student}: its features have another width than those of --clip")
    comparison = compare_pairs(student, teacher, pairs)
    held_out = sorted(args.corpus.glob("valid/*.parquet"))
    settings = {
        "student": args.student,
        "clip": args.clip,
        "corpus": str(args.corpus),
        "precision": args.precision,
        "device": str(device),
        "sha256": hashes([*held_out, *model_files(args.student), *model_files(args.clip)]),
        "command": command_line("eval.pairs", arguments),
        "commit": commit(),
        "versions": versions(),
    }
    write_json({**comparison, "settings": settings}, args.out)
    print(json.dumps(comparison["by_domain"], ensure_ascii=False, indent=2))


if __name__ == "__main__":
    run_cli(main)
