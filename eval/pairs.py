"""`python -m eval.pairs`: how near the student's Chinese comes to the teacher's English on a corpus's held-out pairs.

Cosine of the projected features by domain and by length, cosine of the states slot by slot, and the 50 worst pairs:
where a cosine is low, the student is poor or the pair is no translation, and a look at the pair tells which.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import check_writable, write_json
from distill.api import Encoder, load_student
from eval.held_out import Pairs, concat_pairs, load_held_out

LENGTH_BOUNDS = (8, 16, 32, 64, 77)
"""Upper bounds of the length bands, in the teacher's English tokens."""
NUM_WORST = 50


def compare_pairs(student: Encoder, teacher: Encoder, pairs: Pairs) -> dict[str, Any]:
    """Everything that the report shows of `pairs`, as JSON values."""
    english, chinese = teacher.encode(pairs.en), student.encode(pairs.zh)
    cosine = (chinese * english).sum(axis=1)
    english_cosine = (student.encode(pairs.en) * english).sum(axis=1)
    lengths = np.array([len(ids) for ids in teacher.tokenizer(pairs.en, verbose=False).input_ids])
    domains = np.array(pairs.domain)
    bands = [(low, high) for low, high in zip((0, *LENGTH_BOUNDS), LENGTH_BOUNDS, strict=False)]
    worst = np.argsort(cosine, kind="stable")[:NUM_WORST]
    return {
        "kind": "pairs",
        "pairs": len(pairs.en),
        "by_domain": {
            str(domain): {
                "pairs": int((domains == domain).sum()),
                "zh": _mean(cosine[domains == domain]),
                "en": _mean(english_cosine[domains == domain]),
            }
            for domain in np.unique(domains)
        },
        "by_length": {
            f"{low + 1} to {high}": {
                "pairs": int(inside.sum()),
                "zh": _mean(cosine[inside]),
                "en": _mean(english_cosine[inside]),
            }
            for low, high in bands
            if (
                inside := (np.minimum(lengths, LENGTH_BOUNDS[-1]) > low)
                & (np.minimum(lengths, LENGTH_BOUNDS[-1]) <= high)
            ).any()
        },
        "by_slot": cosine_by_position(student, teacher, pairs),
        "worst": [
            {"cosine": round(float(cosine[n]), 4), "domain": pairs.domain[n], "zh": pairs.zh[n], "en": pairs.en[n]}
            for n in worst.tolist()
        ],
    }


def cosine_by_position(
    student: Encoder, teacher: Encoder, pairs: Pairs, max_pairs: int = 256
) -> dict[str, list[float]]:
    """Mean cosine of the states at each slot, padding included, against the teacher's English.

    Of the student's Chinese, of its English, and of its empty prompt; over `most` pairs spread over all.
    """
    rows = np.unique(np.linspace(0, len(pairs.en) - 1, min(max_pairs, len(pairs.en))).astype(int)).tolist()
    sums: dict[str, list[torch.Tensor]] = {"zh": [], "en": []}
    for start in tqdm(range(0, len(rows), 32), desc="states", unit="batch", leave=False, disable=None):
        batch = rows[start : start + 32]
        target = teacher.states([pairs.en[row] for row in batch])
        for name, texts in (("zh", pairs.zh), ("en", pairs.en)):
            states = student.states([texts[row] for row in batch])
            sums[name].append(torch.nn.functional.cosine_similarity(states, target, dim=-1))
    empty = torch.nn.functional.cosine_similarity(student.states([""]), teacher.states([""]), dim=-1)[0]
    means = {name: torch.cat(parts).mean(dim=0) for name, parts in sums.items()}
    return {name: [round(float(x), 4) for x in values] for name, values in {**means, "empty prompt": empty}.items()}


def _mean(values: NDArray[np.float32]) -> float:
    return round(float(values.mean()), 4)


def main(arguments: list[str] | None = None) -> None:
    """Compare on held-out pairs and write the JSON that `eval.report` shows."""
    parser = ArgumentParser(prog="python -m eval.pairs", description="Cosines on held-out pairs.", exit_on_error=False)
    parser.add_argument("--student", type=str, required=True, help="folder or Hub id of the student, as exported")
    parser.add_argument("--clip", type=str, required=True, help="folder or Hub id of the teacher")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that python -m data.build wrote")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--per-domain", type=int, default=500, help="pairs of each domain")
    args = parser.parse_args(arguments)
    if args.per_domain < 1:
        raise UserError("--per-domain must be at least 1")
    check_writable(args.out)
    pairs = concat_pairs(load_held_out(args.corpus, args.per_domain))
    student, teacher = load_student(args.student, key="--student"), load_student(args.clip, key="--clip")
    if student.model.text_projection.out_features != teacher.model.text_projection.out_features:
        raise UserError(f"--student {args.student}: its features have another width than those of --clip")
    comparison = compare_pairs(student, teacher, pairs)
    settings = {"student": args.student, "clip": args.clip, "corpus": str(args.corpus)}
    write_json({**comparison, "settings": settings}, args.out)
    print(json.dumps(comparison["by_domain"], ensure_ascii=False, indent=2))


if __name__ == "__main__":
    run_cli(main)
