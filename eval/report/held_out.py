"""The section of held-out pairs: cosines by domain, length and slot, and the worst pairs."""

from collections.abc import Mapping
from html import escape
from typing import Any

from eval.report.parts import table
from eval.report.svg import chart


def section(name: str, value: Mapping[str, Any]) -> str:
    """Everything that `eval.pairs` wrote."""
    parts = [f"<h2>Held-out pairs <small>{escape(name)}</small></h2>",
             "<p>Cosine with the teacher's English: of the student's Chinese, and of its English.</p>"]  # fmt: skip
    for title, key in (("domain", "by_domain"), ("English tokens", "by_length")):
        rows = [
            f"<tr><td>{escape(each)}</td><td>{told['pairs']}</td><td>{told['zh']:.4f}</td><td>{told['en']:.4f}</td></tr>"
            for each, told in value[key].items()
        ]
        parts.append(table([title, "pairs", "Chinese", "English"], rows))
    slots = {each: list(enumerate(map(float, values))) for each, values in value["by_slot"].items()}
    parts.append(chart("Cosine of the states by slot, padding included", "slot", slots))
    rows = [f"<tr><td>{row['cosine']:.3f}</td><td>{escape(row['domain'])}</td><td class='text'>{escape(row['zh'])}</td>"
            f"<td class='text'>{escape(row['en'])}</td></tr>" for row in value["worst"]]  # fmt: skip
    worst = table(["cosine", "domain", "Chinese", "English"], rows)
    return "".join([*parts, f"<details><summary>The {len(rows)} worst pairs</summary>{worst}</details>"])
