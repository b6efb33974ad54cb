"""The section of a run: what training logged, as charts."""

from collections.abc import Mapping, Sequence
from html import escape

from eval.report.svg import chart

GROUPS = {"lr": "learning rate", "grad_norm": "gradient norm", "pairs_per_second": "pairs a second"}


def section(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    """A chart for each group of values; held-out values apart, by what they measure."""
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        if key not in ("step", "pairs"):
            groups.setdefault(_group(key), []).append(key)
    charts = [
        chart(group, "step", {_short(key): [(float(r["step"]), float(r[key])) for r in rows if key in r and "step" in r]
                              for key in members})
        for group, members in groups.items()
    ]  # fmt: skip
    return f"<h2>Training <small>{escape(name)}</small></h2><div class='charts'>{''.join(charts)}</div>"


def _group(key: str) -> str:
    return f"held out: {key.rsplit('/', 1)[1]}" if key.startswith("valid/") else GROUPS.get(key, "losses")


def _short(key: str) -> str:
    return key.removeprefix("valid/").rsplit("/", 1)[0] if key.startswith("valid/") else key
