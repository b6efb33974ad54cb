"""The results of an ablation as a Markdown table and as a picture: means over seeds with 95 % intervals."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from eval.dots import dots

T975 = dict(enumerate((12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262), 2))  # Student's t by seeds
MEASURES = {
    "zh/teacher en, MR %": ("retrieval", "student-zh/teacher-en"),
    "en/teacher en, MR %": ("retrieval", "student-en/teacher-en"),
    "zh things/teacher's %": ("drawn", "things_share.student-zh"),
    "mixed things/teacher's %": ("drawn", "things_share.student-mixed"),
    "zh prediction error": ("drawn", "prediction_error.student-zh"),
    "en PSNR, dB": ("drawn", "psnr.student-en"),
    "distilling, CPU s": ("cost", "seconds"),
}

Results = Mapping[str, Mapping[str, list[float]]]


def results(out: Path, names: Iterable[str]) -> Results:
    """[row][measure] = values by seed, of the rows that have a ROW.SEED.json in `out`, in the order of `names`."""
    found = {}
    for name in names:
        seeds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"{name}.[0-9]*.json"))]
        if seeds:
            found[name] = {measure: _values(seeds, *where) for measure, where in MEASURES.items()}
    return found


def _values(seeds: Iterable[Mapping[str, Any]], part: str, key: str) -> list[float]:
    return [each[part][key] for each in seeds if key in each.get(part, {})]


def table(found: Results) -> str:
    """A Markdown line for each row."""
    lines = ["| row | seeds | " + " | ".join(MEASURES) + " |", "|---|---|" + "---|" * len(MEASURES)]
    for name, measures in found.items():
        seeds = max(map(len, measures.values()))
        lines.append(f"| {name} | {seeds} | " + " | ".join(map(spread, measures.values())) + " |")
    return "\n".join(lines) + "\n"


def picture(found: Results) -> str:
    """The same as dots, SVG: the measures that have values."""
    shown = [measure for measure in MEASURES if any(measures[measure] for measures in found.values())]
    panels = {measure: {name: measures[measure] for name, measures in found.items()} for measure in shown}
    return dots(panels, list(found), half_width)


def spread(values: Sequence[float]) -> str:
    """The mean, and from two seeds on the half width of its interval."""
    if not values:
        return "-"
    digits = 1 if abs(mean(values)) >= 10 else 3
    found = f"{mean(values):.{digits}f}"
    return f"{found} ± {half_width(values):.{digits}f}" if len(values) in T975 else found


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean by Student's t; 0 where there is no telling (one value, or more than ten)."""
    return T975[len(values)] * stdev(values) / math.sqrt(len(values)) if len(values) in T975 else 0.0
