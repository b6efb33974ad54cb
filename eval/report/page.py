"""The report as one HTML page that loads nothing: no script, no font, no request; pictures are inside it.

The section of a run: what training logged, as charts.

The section of held-out pairs: cosines by domain, length and slot, and the worst pairs.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from eval.report import sections
from eval.report.charts import html_table, line_chart
from eval.report.inputs import ReportInputs
from eval.report.sections import OptionalImageReader

GROUPS = {"lr": "learning rate", "grad_norm": "gradient norm", "pairs_per_second": "pairs a second"}


def curves_section(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    """A chart for each group of values; held-out values apart, by what they measure."""
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        if key not in ("step", "pairs"):
            groups.setdefault(_group(key), []).append(key)
    charts = [
        line_chart(
            group,
            "step",
            {
                _short(key): [(float(r["step"]), float(r[key])) for r in rows if key in r and "step" in r]
                for key in members
            },
        )
        for group, members in groups.items()
    ]
    return f"<h2>Training <small>{escape(name)}</small></h2><div class='charts'>{''.join(charts)}</div>"


def _group(key: str) -> str:
    return f"held out: {key.rsplit('/', 1)[1]}" if key.startswith("valid/") else GROUPS.get(key, "losses")


def _short(key: str) -> str:
    return key.removeprefix("valid/").rsplit("/", 1)[0] if key.startswith("valid/") else key


def held_out_section(name: str, value: Mapping[str, Any]) -> str:
    """Everything that `eval.pairs` wrote."""
    parts = [f"<h2>Held-out pairs <small>{escape(name)}</small></h2>",
             "<p>Cosine with the teacher's English: of the student's Chinese, and of its English.</p>"]  # fmt: skip
    for title, key in (("domain", "by_domain"), ("English tokens", "by_length")):
        rows = [
            f"<tr><td>{escape(each)}</td><td>{told['pairs']}</td><td>{told['zh']:.4f}</td><td>{told['en']:.4f}</td></tr>"
            for each, told in value[key].items()
        ]
        parts.append(html_table([title, "pairs", "Chinese", "English"], rows))
    slots = {each: list(enumerate(map(float, values))) for each, values in value["by_slot"].items()}
    parts.append(line_chart("Cosine of the states by slot, padding included", "slot", slots))
    rows = [f"<tr><td>{row['cosine']:.3f}</td><td>{escape(row['domain'])}</td><td class='text'>{escape(row['zh'])}</td>"
            f"<td class='text'>{escape(row['en'])}</td></tr>" for row in value["worst"]]  # fmt: skip
    worst = html_table(["cosine", "domain", "Chinese", "English"], rows)
    return "".join([*parts, f"<details><summary>The {len(rows)} worst pairs</summary>{worst}</details>"])


PAGE_STYLE = """
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
.axis,.note,.twins figcaption{font-size:.85rem;opacity:.75}.shots{display:flex;gap:.4rem;flex-wrap:wrap}
.shots img{width:96px;height:96px;object-fit:cover;border:3px solid transparent}.shots img.right{border-color:#059669}
.twins figure{margin:0}.twins img{width:128px;height:128px;border:0}
code,pre{font-size:.8rem;overflow-wrap:anywhere;white-space:pre-wrap}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_page(title: str, sources: ReportInputs, picture: OptionalImageReader) -> str:
    """The whole page; every text from a file is escaped."""
    parts = [
        *(sections.retrieval_section(name, result, picture) for name, result in sources.results.items()),
        *(sections.translation_section(name, result) for name, result in sources.translations.items()),
        *(sections.twins_section(name, drawn.result, drawn.pictures) for name, drawn in sources.generations.items()),
        *(curves_section(name, rows) for name, rows in sources.curves.items()),
        *(held_out_section(name, value) for name, value in sources.pairs.items()),
        _settings(
            {
                **sources.results,
                **sources.translations,
                **{name: drawn.result for name, drawn in sources.generations.items()},
            }
        ),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{PAGE_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{''.join(parts)}</body></html>\n"
    )


def _settings(results: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for name, result in results.items():
        settings = result["settings"]
        hashes = "".join(f"{escape(digest)}  {escape(path)}\n" for path, digest in settings.get("sha256", {}).items())
        rest = "".join(f"{escape(str(k))}: {escape(str(v))}\n" for k, v in settings.items() if k != "sha256")
        parts.append(f"<h3>{escape(name)}</h3><pre>{rest}</pre><pre>{hashes}</pre>")
    return f"<details><summary>Settings and hashes</summary>{''.join(parts)}</details>" if parts else ""
