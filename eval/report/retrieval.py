"""The section of a retrieval benchmark: its table, its ratios, the peers, and what captions found."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from eval.images import opened
from eval.report.parts import inside, table
from eval.report.peers import CEILING, PUBLISHED
from eval.result import METRICS
from eval.table import ROLES

Picture = Callable[[str], bytes | None]
"""From an image id to the bytes of its file; None where it is not at hand."""
RECALLS = [f"{way} R@{k}" for way in ("T2I", "I2T") for k in (1, 5, 10)]


def section(name: str, result: Mapping[str, Any], picture: Picture) -> str:
    """Everything of one result file."""
    settings = result["settings"]
    benchmark = str(settings.get("benchmark", name))
    rows = [row(each) for each in result["rows"]]
    note = (
        f"{settings.get('images')} images; protocol {settings.get('protocol')}: pictures {settings.get('transform')}, "
        f"at most {settings.get('max_length')} tokens, {settings.get('precision')}. Intervals by bootstrap over images."
    )
    ratios = "".join(
        f"<p><strong>{escape(pair)}</strong>: {told['percent']:.2f} % of the mean recall "
        f"[{told['ci95'][0]:.2f}, {told['ci95'][1]:.2f}]</p>"
        for pair, told in result.get("ratios", {}).items()
    )
    heading = f"<h2>{escape(benchmark)} <small>{escape(name)}</small></h2>"
    scores = table(["", *RECALLS, "MR", "95 %"], rows)
    shots = _examples(result.get("examples", []), picture)
    return f'{heading}{scores}{ratios}<p class="note">{escape(note)}</p>{_peers(benchmark)}{shots}'


def row(each: Mapping[str, Any]) -> str:
    """A row of a result: who, the six recalls, their mean and its interval."""
    low, high = each["ci95"]["mr"]
    role = ROLES.get((each["model"], each["language"]))
    name = f"{each['model']} {each['language']}" + (f" ({role})" if role else "")
    cells = [*(f"{each[metric]:.1f}" for metric in METRICS[:6]), f"{each['mr']:.2f}", f"{low:.2f} to {high:.2f}"]
    cells = [f"<td>{cell}</td>" for cell in cells]
    return f'<tr class="{escape(each["model"])}"><td>{escape(name)}</td>{"".join(cells)}</tr>'


def _peers(benchmark: str) -> str:
    known = PUBLISHED.get(benchmark)
    if known is None:
        return ""
    lines = [
        f"<tr><td>{escape(peer.model)}</td>"
        + "".join(f"<td>{score:.1f}</td>" for score in (*peer.t2i, *peer.i2t, peer.mr))
        + "</tr>"
        for peer in (*known, CEILING)
    ]
    published = table(["published, 1K test", *RECALLS, "MR"], lines)
    return f"<details><summary>What the peers published</summary>{published}</details>"


def _examples(examples: Sequence[Mapping[str, Any]], picture: Picture) -> str:
    shown = [each for each in examples if (each["model"], each["language"]) == ("student", "zh")]
    parts = []
    for each in shown:
        right = set(each["right"])
        shots = [_shot(image, image in right, picture) for image in each["found"]]
        if any(shots):
            place = f"<p class='note'>first right one at place {each['place']}</p>"
            parts.append(f"<h4>{escape(each['caption'])}</h4>{place}<div class='shots'>{''.join(shots)}</div>")
    return f"<h3>What the student finds</h3>{''.join(parts)}" if parts else ""


def _shot(image: str, right: bool, picture: Picture) -> str:
    content = picture(image)
    return "" if content is None else inside(opened(content, image), image, "right" if right else "")
