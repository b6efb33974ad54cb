"""The report as one HTML page that loads nothing: no script, no font, no request; pictures are inside it."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from eval.images import opened
from eval.peers import CEILING, PUBLISHED
from eval.report_sources import Sources
from eval.result import METRICS
from eval.svg import chart

Picture = Callable[[str], bytes | None]
"""From an image id to the bytes of its file; None where it is not at hand."""

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;max-width:66rem;margin:0 auto;padding:1rem}
h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,td.text{text-align:left}td.text{white-space:normal;min-width:12rem}
tr.student{background:var(--soft);font-weight:600}
figure{margin:1rem 0;max-width:44rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
figcaption{font-weight:600}svg{width:100%;height:auto;font:11px sans-serif}svg text{fill:currentColor}
.grid{stroke:var(--line)}.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem}
.legend span{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
.axis,.note{font-size:.85rem;opacity:.75}.shots{display:flex;gap:.4rem;flex-wrap:wrap}
.shots img{width:96px;height:96px;object-fit:cover;border:3px solid transparent}.shots img.right{border-color:#059669}
code,pre{font-size:.8rem;overflow-wrap:anywhere;white-space:pre-wrap}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, sources: Sources, picture: Picture) -> str:
    """The whole page; every text from a file is escaped."""
    sections = [
        *(_result(name, result, picture) for name, result in sources.results.items()),
        *(_curves(name, rows) for name, rows in sources.curves.items()),
        *(_pairs(name, value) for name, value in sources.pairs.items()),
        _settings(sources.results),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{''.join(sections)}</body></html>\n"
    )


def _result(name: str, result: Mapping[str, Any], picture: Picture) -> str:
    settings = result["settings"]
    benchmark = str(settings.get("benchmark", name))
    rows = [_row(f"{row['model']} {row['language']}", row, row["model"]) for row in result["rows"]]
    note = (
        f"{settings.get('images')} images; protocol {settings.get('protocol')}: pictures {settings.get('transform')}, "
        f"at most {settings.get('max_length')} tokens, {settings.get('precision')}. Intervals by bootstrap over images."
    )
    ratios = "".join(
        f"<p><strong>{escape(pair)}</strong>: {told['percent']:.2f} % of the mean recall "
        f"[{told['ci95'][0]:.2f}, {told['ci95'][1]:.2f}]</p>"
        for pair, told in result.get("ratios", {}).items()
    )
    peers = _peers(benchmark)
    shots = _examples(result.get("examples", []), picture)
    head = ["", *(f"{way} R@{k}" for way in ("T2I", "I2T") for k in (1, 5, 10)), "MR", "95 %"]
    heading = f"<h2>{escape(benchmark)} <small>{escape(name)}</small></h2>"
    return f'{heading}{_table(head, rows)}{ratios}<p class="note">{escape(note)}</p>{peers}{shots}'


def _row(name: str, row: Mapping[str, Any], kind: str) -> str:
    low, high = row["ci95"]["mr"]
    cells = [*(f"{row[metric]:.1f}" for metric in METRICS[:6]), f"{row['mr']:.2f}", f"{low:.2f} to {high:.2f}"]
    return f'<tr class="{escape(kind)}"><td>{escape(name)}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


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
    head = ["published, 1K test", *(f"{way} R@{k}" for way in ("T2I", "I2T") for k in (1, 5, 10)), "MR"]
    return f"<details><summary>What the peers published</summary>{_table(head, lines)}</details>"


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    heading = "".join(f"<th>{escape(each)}</th>" for each in head)
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


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
    if content is None:
        return ""
    small = opened(content, image)
    small.thumbnail((192, 192))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{"right" if right else ""}" alt="{escape(image)}" src="data:image/jpeg;base64,{code}">'


def _curves(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    keys = dict.fromkeys(key for row in rows for key in row)
    groups: dict[str, list[str]] = {}
    for key in keys:
        if key in ("step", "pairs"):
            continue
        held = key.startswith("valid/")
        groups.setdefault(f"held out: {key.rsplit('/', 1)[1]}" if held else _group(key), []).append(key)
    charts = [
        chart(group, "step", {_short(key): [(float(r["step"]), float(r[key])) for r in rows if key in r and "step" in r]
                              for key in members})
        for group, members in groups.items()
    ]  # fmt: skip
    return f"<h2>Training <small>{escape(name)}</small></h2><div class='charts'>{''.join(charts)}</div>"


def _group(key: str) -> str:
    own = {"lr": "learning rate", "grad_norm": "gradient norm", "pairs_per_second": "pairs a second"}
    return own.get(key, "losses")


def _short(key: str) -> str:
    return key.removeprefix("valid/").rsplit("/", 1)[0] if key.startswith("valid/") else key


def _pairs(name: str, value: Mapping[str, Any]) -> str:
    parts = [f"<h2>Held-out pairs <small>{escape(name)}</small></h2>",
             "<p>Cosine with the teacher's English: of the student's Chinese, and of its English.</p>"]  # fmt: skip
    for title, key in (("domain", "by_domain"), ("English tokens", "by_length")):
        rows = [
            f"<tr><td>{escape(each)}</td><td>{told['pairs']}</td><td>{told['zh']:.4f}</td><td>{told['en']:.4f}</td></tr>"
            for each, told in value[key].items()
        ]
        parts.append(_table([title, "pairs", "Chinese", "English"], rows))
    slots = {each: list(enumerate(map(float, values))) for each, values in value["by_slot"].items()}
    parts.append(chart("Cosine of the states by slot, padding included", "slot", slots))
    rows = [f"<tr><td>{row['cosine']:.3f}</td><td>{escape(row['domain'])}</td><td class='text'>{escape(row['zh'])}</td>"
            f"<td class='text'>{escape(row['en'])}</td></tr>" for row in value["worst"]]  # fmt: skip
    worst = _table(["cosine", "domain", "Chinese", "English"], rows)
    return "".join([*parts, f"<details><summary>The {len(rows)} worst pairs</summary>{worst}</details>"])


def _settings(results: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for name, result in results.items():
        settings = result["settings"]
        hashes = "".join(f"{escape(digest)}  {escape(path)}\n" for path, digest in settings.get("sha256", {}).items())
        rest = "".join(f"{escape(str(k))}: {escape(str(v))}\n" for k, v in settings.items() if k != "sha256")
        parts.append(f"<h3>{escape(name)}</h3><pre>{rest}</pre><pre>{hashes}</pre>")
    return f"<details><summary>Settings and hashes</summary>{''.join(parts)}</details>" if parts else ""
