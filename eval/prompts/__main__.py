"""`python -m eval.prompts`: does the student understand a Chinese prompt as the teacher understands its English?

`--data` holds aligned prompts (`eval.prompts.aligned`), `--english` their English where it is another file. No
picture is needed: a Chinese prompt looks for its English among all of them in the teacher's space, and the English for
its Chinese. With `--geometry`, also the error of what a UNet's cross-attentions read from the states. By kind, with
intervals by bootstrap over prompts, and the worst prompts.
"""

import time
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from data.cli import UserError, command_line, run_cli
from data.files import read_json, validated, write_json
from distill.api import load_student
from distill.text_tower import StateLayer
from eval.datasets.benchmark import RetrievalBenchmark
from eval.metrics import BOOTSTRAP_SEED, CUTOFFS, DRAWS
from eval.prompts.aligned import AlignedPrompt, read_aligned_prompts
from eval.prompts.scores import (
    Baseline,
    UnetReadout,
    add_readout,
    group_scores,
    over_length,
    paired_differences,
    prompts_sha256,
    score_prompts,
    worst_prompts,
)
from eval.retrieval.command import common_options, make_parser
from eval.retrieval.result import OPENAI, Options
from eval.retrieval.score import load_models, score_settings

_MODULE = "eval.prompts"
_GALLERY = "the teacher's English prompts"


def parse_args(arguments: list[str] | None) -> tuple[Namespace, Options]:
    """The options of this command, and those that every benchmark has."""
    parser = make_parser(_MODULE, "Aligned prompts, Chinese to English and back in the teacher's space.")
    parser.add_argument(
        "--english", type=Path | None, help="the English prompts, where --data holds Chinese ones alone"
    )
    parser.add_argument("--only", type=str | None, help="KEY=VALUE, prompts of one group, such as length=short")
    parser.add_argument("--geometry", type=Path | None, help="of a UNet, as python -m distill.unet_geometry writes it")
    parser.add_argument("--state-layer", type=StateLayer, default="last", help="states that the UNet reads")
    parser.add_argument(
        "--baseline", type=Path | None, help="result of another student on the same prompts, to compare"
    )
    parser.add_argument("--worst", type=int, default=30, help="prompts to list, the worst first")
    args = parser.parse_args(arguments)
    return args, common_options(args, OPENAI, command_line(_MODULE, arguments))


def run_prompts(arguments: list[str] | None = None) -> dict[str, Any]:
    """Score, print the tables and write the JSON."""
    start = time.monotonic()
    args, options = parse_args(arguments)
    data = Path(options.data)
    prompts = select_group(read_aligned_prompts(data, args.english), args.only)
    digest = prompts_sha256(prompts)
    baseline = None if args.baseline is None else read_baseline(args.baseline, digest)
    models = load_models(options)
    readout = None
    if args.geometry is not None:
        readout = UnetReadout(options.student, options.clip, args.geometry, args.state_layer, options.device)
    rows = score_prompts(prompts, models, options)
    if readout is not None:
        rows = [add_readout(row, prompts, readout) for row in rows]
    files = (data, *([args.english] if args.english else []), *([args.geometry] if args.geometry else []))
    benchmark = RetrievalBenchmark(tuple(prompt.en for prompt in prompts), {}, None, files)
    settings = score_settings(options.title or data.stem, benchmark, _GALLERY, options, time.monotonic() - start)
    settings |= {
        "bootstrap": {"over": "prompts", "draws": DRAWS, "seed": BOOTSTRAP_SEED},
        "only": args.only,
        "baseline": str(args.baseline) if args.baseline else None,
        "geometry": str(args.geometry) if args.geometry else None,
        "state_layer": args.state_layer,
    }
    by_prompt = {name: [round(v, 4) for v in rows[0].measures[name].tolist()] for name in ("r1", "cosine")}
    result = {
        "kind": "prompts",
        "scores": [row.to_json() for row in rows],
        "groups": group_scores(prompts, rows[0]),
        "over_length": over_length(prompts, models, options.max_length),
        "worst": with_readings(worst_prompts(prompts, rows[0], args.worst), options),
        **({} if baseline is None else {"difference": paired_differences(by_prompt, baseline["by_prompt"])}),
        "by_prompt": by_prompt,
        "prompts_sha256": digest,
        "settings": settings,
    }
    print(prompts_table(result))
    if options.out is not None:
        write_json(result, options.out)
    return result


def with_readings(worst: list[dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    """`worst` with what the student understood, in English, where its folder has a decoder."""
    if not (Path(options.student) / "decoder").is_dir():
        return worst
    student = load_student(options.student, options.device, "--student")
    return [{**row, "read": student.read_back(row["zh"])} for row in worst]


def select_group(prompts: list[AlignedPrompt], only: str | None) -> list[AlignedPrompt]:
    """The prompts of the group `only`, "KEY=VALUE"; all where it is None, UserError where fewer than two have it."""
    if only is None:
        return prompts
    key, _, value = only.partition("=")
    selected = [prompt for prompt in prompts if (key, value) in prompt.groups]
    if len(selected) < 2:
        groups = ", ".join(sorted({f"{key}={value}" for prompt in prompts for key, value in prompt.groups}))
        raise UserError(
            f"--only {only}: {len(selected)} prompts of it, at least two are needed; there are {groups[:300]}"
        )
    return selected


def read_baseline(path: Path, digest: str) -> Baseline:
    """An earlier result; UserError where it is none, or of other prompts than those of `digest`."""
    where = f"--baseline {path}"
    baseline = validated(read_json(path), Baseline, where, "give a result of python -m eval.prompts")
    if baseline["prompts_sha256"] != digest:
        raise UserError(f"{where}: of other prompts; score the other student on these")
    return baseline


def prompts_table(result: dict[str, Any]) -> str:
    """Scores of every model and form, the ten worst values of each group, the worst prompts, the share of long ones."""
    head = f"{'':24}{'prompts':>8} | {'to English':^17} | {'to Chinese':^17} |{'R@1':>6}  {'95 %':14} cosine  readout"
    lines = [head, "-" * len(head)]
    lines += [_terminal_line(f"{row['model']} {row['form']}", row) for row in result["scores"]]
    for name, values in result["groups"].items():
        lines += ["", f"student zh by {name}, the worst first:"]
        lines += [_terminal_line(f"  {value}"[:24], scores) for value, scores in list(values.items())[:10]]
    if "difference" in result:
        difference = result["difference"]
        low, high = difference["ci95"]["r1"]
        lines += [
            "",
            f"R@1 less that of {result['settings']['baseline']}: {difference['r1']:+.2f} [{low:.2f}, {high:.2f}]",
        ]
    over = result["over_length"]
    lines += ["", "worst prompts, and the English that came first:"]
    for row in result["worst"][:5]:
        lines.append(f"  rank {row['rank']}: {row['zh']} -> {row['found']}"[:110])
        lines += [f"    read back: {row['read']}"[:110]] if "read" in row else []
    shares = f"{over['zh']:.1f} % in Chinese, {over['en']:.1f} % in English, {over['either']:.1f} % in either"
    lines += ["", f"over {over['tokens']} tokens: {shares}"]
    return "\n".join(lines)


def _terminal_line(name: str, scores: dict[str, Any]) -> str:
    ways = [" ".join(f"{scores[f'{way}_r{k}']:5.1f}" for k in CUTOFFS) for way in ("to_en", "to_zh")]
    low, high = scores["ci95"]["r1"]
    readout = f"  {scores['readout']:.3f}" if "readout" in scores else ""
    return (
        f"{name:24}{scores['prompts']:8} | {ways[0]} | {ways[1]} |{scores['r1']:6.1f}  "
        f"{f'[{low:.1f}, {high:.1f}]':14} {scores['cosine']:6.3f}{readout}"
    )


if __name__ == "__main__":
    run_cli(run_prompts)
