"""A dot plot as an SVG file: a line for each row, a panel for each measure, every value and the mean's interval.

What the sections of the report share: a table that scrolls by itself, and a picture inside the page.

Line charts as SVG text, for a page that loads nothing.
"""

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from statistics import mean, median

from PIL import Image

LABEL_WIDTH, PANEL_WIDTH, ROW_HEIGHT, HEADER_HEIGHT, PANEL_PADDING = (
    180,
    180,
    20,
    40,
    14,
)  # widths and heights in pixels
DOT_PLOT_STYLE = (
    "text{font:12px sans-serif;fill:#1e293b}.t{font-weight:bold}.e{text-anchor:end}.m{text-anchor:middle;fill:#64748b}"
    "line{stroke:#94a3b8}.i{stroke:#2563eb;stroke-width:2}.v{fill:#2563eb;fill-opacity:.35}.c{fill:#2563eb}"
)


def dot_plot(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    rows: Sequence[str],
    half_width: Callable[[Sequence[float]], float],
) -> str:
    """The picture of panels[measure][row] = values by seed, rows in their order, and of mean +- half_width(values).

    The first row's mean is drawn through. A row without values stays empty; an interval is cut at the panel's edge, and
    a mean beyond it is written there.
    """
    width, height = LABEL_WIDTH + PANEL_WIDTH * len(panels), HEADER_HEIGHT + ROW_HEIGHT * len(rows) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f'<style>{DOT_PLOT_STYLE}</style><rect width="{width}" height="{height}" fill="white"/>',
        *(f'<text class="e" x="{LABEL_WIDTH - 8}" y="{_row_y(place) + 4}">{escape(row)}</text>'
          for place, row in enumerate(rows)),
        *(_panel(LABEL_WIDTH + PANEL_WIDTH * place, measure, found, rows, half_width)
          for place, (measure, found) in enumerate(panels.items())),
        "</svg>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _panel(
    left: float,
    measure: str,
    values_by_row: Mapping[str, Sequence[float]],
    rows: Sequence[str],
    half_width: Callable[[Sequence[float]], float],
) -> str:
    low, high = _value_span([value for each in values_by_row.values() for value in each])
    bottom = _row_y(len(rows))

    def x_of(value: float) -> float:
        share = min(max((value - low) / (high - low), 0), 1)
        return left + PANEL_PADDING + share * (PANEL_WIDTH - 2 * PANEL_PADDING)

    parts = [f'<text class="t" x="{left + PANEL_PADDING}" y="18">{escape(measure)}</text>']
    parts += [f'<text class="m" x="{x_of(value):.1f}" y="{bottom + 12}">{value:.4g}</text>' for value in (low, high)]
    for place, row in enumerate(rows):
        if not (seeds := values_by_row.get(row)):
            continue
        middle, half = mean(seeds), half_width(seeds)
        y = _row_y(place)
        if place == 0:
            parts.append(f'<line stroke-dasharray="3" x1="{x_of(middle):.1f}" x2="{x_of(middle):.1f}" '
                         f'y1="{HEADER_HEIGHT - 10}" y2="{bottom - 4}"/>')  # fmt: skip
        ends = x_of(middle - half), x_of(middle + half)
        parts.append(f'<line class="i" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="v" cx="{x_of(value):.1f}" cy="{y}" r="3"/>' for value in seeds]
        parts.append(f'<circle class="c" cx="{x_of(middle):.1f}" cy="{y}" r="4"/>')
        if not low <= middle <= high:
            inwards = ("", 8) if middle < low else ("e", -8)
            parts.append(f'<text class="{inwards[0]}" x="{x_of(middle) + inwards[1]:.1f}" y="{y + 4}">'
                         f"{middle:.4g}</text>")  # fmt: skip
    return "\n".join(parts)


def _value_span(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest value within 8 median deviations: one row must not flatten the rest."""
    middle = median(values)
    deviation = median(abs(value - middle) for value in values)
    near = [value for value in values if not deviation or abs(value - middle) <= 8 * deviation]
    low, high = min(near), max(near)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _row_y(place: int) -> int:
    return HEADER_HEIGHT + ROW_HEIGHT * place


def html_table(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table of ready rows (`<tr>...</tr>`); on a phone it scrolls in its own frame."""
    heading = "".join(f"<th>{escape(each)}</th>" for each in head)
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def inline_image(picture: Image.Image, alt: str, css_class: str = "") -> str:
    """The picture as an `<img>` that holds its own bytes, no side above 192 pixels, of the CSS class `kind`."""
    small = picture.copy()
    small.thumbnail((192, 192))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{css_class}" alt="{escape(alt)}" src="data:image/jpeg;base64,{code}">'


LINE_COLOURS = (
    "#2563eb",
    "#dc2626",
    "#059669",
    "#d97706",
    "#7c3aed",
    "#0891b2",
    "#be185d",
    "#4d7c0f",
    "#475569",
    "#a16207",
)
CHART_WIDTH, CHART_HEIGHT, CHART_LEFT, CHART_BOTTOM, CHART_TOP = 640, 260, 52, 28, 10


def line_chart(title: str, x_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One chart of named (x, y) series with axes, a legend, and the last value of each; no point that is not finite."""
    finite = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    plotted = {name: points for name, points in finite.items() if points}
    if not plotted:
        return ""
    xs = [x for points in plotted.values() for x, _ in points]
    ys = [y for points in plotted.values() for _, y in points]
    (x0, x1), (y0, y1) = _axis_span(min(xs), max(xs)), _axis_span(min(ys), max(ys))

    def to_point(x: float, y: float) -> str:
        across = CHART_LEFT + (x - x0) / (x1 - x0) * (CHART_WIDTH - CHART_LEFT - 8)
        down = CHART_TOP + (y1 - y) / (y1 - y0) * (CHART_HEIGHT - CHART_TOP - CHART_BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = [
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img">'
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = y0 + share * (y1 - y0)
        left, down = to_point(x0, y).split(",")
        parts.append(f'<line class="grid" x1="{left}" x2="{CHART_WIDTH - 8}" y1="{down}" y2="{down}"/>')
        parts.append(f'<text x="{CHART_LEFT - 6}" y="{float(down) + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        x = x0 + share * (x1 - x0)
        right = to_point(x, y0).split(",")[0]
        parts.append(f'<text x="{right}" y="{CHART_HEIGHT - 8}" text-anchor="middle">{x:.4g}</text>')
    for (_, points), colour in zip(plotted.items(), _colours(len(plotted)), strict=True):
        line = " ".join(to_point(x, y) for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{line}"/>')
        last = to_point(*points[-1]).split(",")
        parts.append(f'<circle fill="{colour}" cx="{last[0]}" cy="{last[1]}" r="3"/>')
    legend = "".join(
        f'<li><span style="background:{colour}"></span>{escape(name)} {points[-1][1]:.4g}</li>'
        for (name, points), colour in zip(plotted.items(), _colours(len(plotted)), strict=True)
    )
    return "".join([*parts, f'</svg><ul class="legend">{legend}</ul><p class="axis">{escape(x_label)}</p></figure>'])


def _axis_span(low: float, high: float) -> tuple[float, float]:
    """A range that is not a point."""
    margin = max(1.0, abs(low)) / 2
    return (low, high) if high > low else (low - margin, high + margin)


def _colours(count: int) -> list[str]:
    return [LINE_COLOURS[number % len(LINE_COLOURS)] for number in range(count)]
