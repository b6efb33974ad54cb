"""SVG charts as text: lines for a page that loads nothing, and the dot plot of an ablation."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import mean, median

from jinja2 import Environment
from markupsafe import Markup

LABEL_WIDTH, PANEL_WIDTH, ROW_HEIGHT, HEADER_HEIGHT, PANEL_PADDING = 180, 180, 20, 40, 14  # pixels
DOT_PLOT_STYLE = (
    "text{font:12px sans-serif;fill:#1e293b}.t{font-weight:bold}.e{text-anchor:end}.m{text-anchor:middle;fill:#64748b}"
    "line{stroke:#94a3b8}.i{stroke:#2563eb;stroke-width:2}.v{fill:#2563eb;fill-opacity:.35}.c{fill:#2563eb}"
)


Values = Sequence[float]


def dot_plot(
    panels: Mapping[str, Mapping[str, Values]], rows: Sequence[str], half_width: Callable[[Values], float]
) -> str:
    """An SVG file with panels[measure][row] = values by seed, rows in their order, and mean +- half_width(values).

    A vertical line marks the first row's mean. A row without values stays empty; an interval is cut at the panel's
    edge, and a mean beyond the edge is written there.
    """
    width, height = LABEL_WIDTH + PANEL_WIDTH * len(panels), HEADER_HEIGHT + ROW_HEIGHT * len(rows) + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f'<style>{DOT_PLOT_STYLE}</style><rect width="{width}" height="{height}" fill="white"/>',
        *(f'<text class="e" x="{LABEL_WIDTH - 8}" y="{_row_y(number) + 4}">{escape(row)}</text>'
          for number, row in enumerate(rows)),
        *(_panel(LABEL_WIDTH + PANEL_WIDTH * number, measure, values, rows, half_width)
          for number, (measure, values) in enumerate(panels.items())),
        "</svg>\n",
    ]  # fmt: skip
    return "\n".join(lines)


def _panel(
    left: float,
    measure: str,
    values_by_row: Mapping[str, Values],
    rows: Sequence[str],
    half_width: Callable[[Values], float],
) -> str:
    low, high = _value_span([value for values in values_by_row.values() for value in values])
    bottom = _row_y(len(rows))

    def x_of(value: float) -> float:
        share = min(max((value - low) / (high - low), 0), 1)
        return left + PANEL_PADDING + share * (PANEL_WIDTH - 2 * PANEL_PADDING)

    lines = [f'<text class="t" x="{left + PANEL_PADDING}" y="18">{escape(measure)}</text>']
    lines += [f'<text class="m" x="{x_of(value):.1f}" y="{bottom + 12}">{value:.4g}</text>' for value in (low, high)]
    for number, row in enumerate(rows):
        if not (values := values_by_row.get(row)):
            continue
        centre, half = mean(values), half_width(values)
        y, x = _row_y(number), f"{x_of(centre):.1f}"
        if number == 0:
            lines.append(f'<line stroke-dasharray="3" x1="{x}" x2="{x}" y1="{HEADER_HEIGHT - 10}" y2="{bottom - 4}"/>')
        start, end = x_of(centre - half), x_of(centre + half)
        lines.append(f'<line class="i" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>')
        lines += [f'<circle class="v" cx="{x_of(value):.1f}" cy="{y}" r="3"/>' for value in values]
        lines.append(f'<circle class="c" cx="{x}" cy="{y}" r="4"/>')
        if not low <= centre <= high:
            css, shift = ("", 8) if centre < low else ("e", -8)
            lines.append(f'<text class="{css}" x="{x_of(centre) + shift:.1f}" y="{y + 4}">{centre:.4g}</text>')
    return "\n".join(lines)


def _value_span(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest value within 8 median deviations: one row must not flatten the rest."""
    centre = median(values)
    deviation = median(abs(value - centre) for value in values)
    near = [value for value in values if not deviation or abs(value - centre) <= 8 * deviation]
    low, high = min(near), max(near)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _row_y(row: int) -> int:
    return HEADER_HEIGHT + ROW_HEIGHT * row


CHART_WIDTH, CHART_HEIGHT, CHART_LEFT, CHART_BOTTOM, CHART_TOP = 640, 260, 52, 28, 10
LINE_COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed",
                "#0891b2", "#be185d", "#4d7c0f", "#475569", "#a16207")  # fmt: skip
LINE_CHART = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<figure><figcaption>{{ title }}</figcaption><svg viewBox="0 0 {{ width }} {{ height }}" role="img">
{% for x, y, x_value, y_value in ticks %}
<line class="grid" x1="{{ left }}" x2="{{ width - 8 }}" y1="{{ y }}" y2="{{ y }}"/>
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ y_value }}</text>
<text x="{{ x }}" y="{{ height - 8 }}" text-anchor="middle">{{ x_value }}</text>
{% endfor %}
{% for name, colour, points, last in lines %}
<polyline fill="none" stroke="{{ colour }}" stroke-width="2"
 points="{% for x, y in points %}{{ x }},{{ y }} {% endfor %}"/>
<circle fill="{{ colour }}" cx="{{ points[-1][0] }}" cy="{{ points[-1][1] }}" r="3"/>
{% endfor %}
</svg><ul class="legend">
{% for name, colour, points, last in lines %}
<li><span style="background:{{ colour }}"></span>{{ name }} {{ last }}</li>
{% endfor %}
</ul><p class="axis">{{ x_label }}</p></figure>
""")


def line_chart(title: str, x_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """One chart of named (x, y) series with axes, a legend and the last value of each; points not finite are left out.

    A series without points is left out, and a chart without series is empty.
    """
    finite = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    plotted = {name: points for name, points in finite.items() if points}
    if not plotted:
        return Markup()
    every_point = [point for points in plotted.values() for point in points]
    x0, x1 = _axis_span([x for x, _ in every_point])
    y0, y1 = _axis_span([y for _, y in every_point])

    def pixel(x: float, y: float) -> tuple[float, float]:
        across = CHART_LEFT + (x - x0) / (x1 - x0) * (CHART_WIDTH - CHART_LEFT - 8)
        down = CHART_TOP + (y1 - y) / (y1 - y0) * (CHART_HEIGHT - CHART_TOP - CHART_BOTTOM)
        return round(across, 1), round(down, 1)

    ticks = [(x0 + share * (x1 - x0), y0 + share * (y1 - y0)) for share in (0, 0.25, 0.5, 0.75, 1)]
    lines = [
        (name, LINE_COLOURS[number % len(LINE_COLOURS)], [pixel(*point) for point in points], f"{points[-1][1]:.4g}")
        for number, (name, points) in enumerate(plotted.items())
    ]
    chart = LINE_CHART.render(
        title=title, x_label=x_label, width=CHART_WIDTH, height=CHART_HEIGHT, left=CHART_LEFT, lines=lines,
        ticks=[(*pixel(x, y), f"{x:.4g}", f"{y:.3g}") for x, y in ticks],
    )  # fmt: skip
    return Markup(chart)  # rendered with autoescape


def _axis_span(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest value; a range around a single one."""
    low, high = min(values), max(values)
    margin = max(1.0, abs(low)) / 2
    return (low, high) if high > low else (low - margin, high + margin)
