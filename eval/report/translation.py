"""The section of translation: domain by domain, what sentences find across the languages, and what was translated."""

import itertools
from collections.abc import Mapping
from html import escape
from typing import Any

from eval.report.parts import table
from eval.report.retrieval import row

FOUND = ["", *(f"{way} R@{k}" for way in ("to English", "back") for k in (1, 5, 10)), "MR", "95 %"]
SAID = ["", "BLEU", "95 %", "chrF", "95 %", "sentences"]


def section(name: str, result: Mapping[str, Any]) -> str:
    """Everything that `eval.translation` wrote."""
    settings = result["settings"]
    note = (
        f"Each sentence looks for its English among the domain's, {settings['images']} in all, in the teacher's space; "
        f"at most {settings['max_length']} tokens, {settings['precision']}. Intervals by bootstrap over sentences."
    )
    heading = f"<h2>{escape(settings['benchmark'])} <small>{escape(name)}</small></h2>"
    domains = itertools.groupby(result["rows"], key=lambda each: each.get("domain", ""))
    parts = [_domain(domain, list(rows), result) for domain, rows in domains]
    return f"{heading}{''.join(parts)}<p class='note'>{escape(note)}</p>"


def _domain(domain: str, rows: list[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    said = [each for each in result["translations"] if each["domain"] == domain]
    parts = [f"<h3>{escape(domain)}</h3>", table(FOUND, map(row, rows))]
    if said:
        parts.append(table(SAID, map(_score, said)))
        parts += [_samples(each) for each in said]
    return "".join(parts)


def _score(each: Mapping[str, Any]) -> str:
    cells = [
        cell
        for metric in ("bleu", "chrf")
        for cell in (f"{each[metric]:.2f}", "{:.2f} to {:.2f}".format(*each[f"{metric}_ci95"]))
    ]
    numbers = "".join(f"<td>{cell}</td>" for cell in (*cells, each["sentences"]))
    return f"<tr><td>{escape(_title(each))}</td>{numbers}</tr>"


def _samples(each: Mapping[str, Any]) -> str:
    rows = [
        "<tr>" + "".join(f"<td class='text'>{escape(shown[key])}</td>" for key in ("zh", "en", "said")) + "</tr>"
        for shown in each["samples"]
    ]
    told = f"{escape(_title(each))}; {escape(each['bleu_signature'])}"
    return f"<details><summary>{told}</summary>{table(['Chinese', 'English', 'said'], rows)}</details>"


def _title(each: Mapping[str, Any]) -> str:
    return f"{each['model']} {each['direction']}"
